"""Measure: what a monitoring system asks for, from the ledger and the broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from chiffon.config import Settings
from chiffon.dispatch.queues import QueueState, queue_states
from chiffon.domain.errors import Busy, LedgerUnavailable, SchemaBehind
from chiffon.domain.views import AgentView, LedgerFigures
from chiffon.domain.work import WorkTypes
from chiffon.ledger import migrate, queries
from chiffon.ledger.connect import Ledger

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Measures:
    """How it stands. What the ledger or the broker would have said is empty, or None, while that does not answer.

    ``figures`` is None too while the ledger answers, but cannot count; then nobody has asked the broker.
    """

    ledger_answers: bool
    broker_answers: bool
    queues: Sequence[QueueState] = ()
    agents: Sequence[AgentView] = ()
    figures: LedgerFigures | None = None


def measure(ledger: Ledger, settings: Settings, work_types: WorkTypes) -> Measures:
    """Look once. It costs what is under way, what has just ended and the agents' lives, not what the ledger holds.

    ``work_types``: those of this process; the agents' are known besides.
    """
    try:
        with ledger.transaction() as cursor:
            migrate.require_current(cursor)
    except (LedgerUnavailable, SchemaBehind):
        return Measures(ledger_answers=False, broker_answers=False)
    try:
        with ledger.transaction() as cursor:
            counted = queries.queues(cursor)
            agents = queries.agents(cursor, offline_after=settings.offline_after)
            known = {kind.name for kind in work_types}.union(*(agent.work_types for agent in agents))
            figures = queries.figures(cursor, known)
    except (LedgerUnavailable, SchemaBehind, Busy) as error:  # it is there, and this much is too much for it now
        log.warning("metrics_incomplete", reason=str(error))
        return Measures(ledger_answers=True, broker_answers=False)
    queues = queue_states(settings, work_types.queues, counted, agents)
    return Measures(True, queues.broker_problem is None, queues.queues, agents, figures)
