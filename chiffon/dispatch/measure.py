"""Measure: what a monitoring system asks for, from the ledger and the broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chiffon.config import Settings
from chiffon.dispatch.queues import QueueState, look_at_queues
from chiffon.domain.errors import LedgerUnavailable, SchemaBehind
from chiffon.domain.views import AgentView, LedgerFigures
from chiffon.ledger import queries
from chiffon.ledger.connect import Ledger


@dataclass(frozen=True)
class Measures:
    """How it stands. What the ledger or the broker would have said is empty, or None, while that does not answer."""

    ledger_answers: bool
    broker_answers: bool
    queues: Sequence[QueueState] = ()
    agents: Sequence[AgentView] = ()
    figures: LedgerFigures | None = None


def measure(ledger: Ledger, settings: Settings, families: Sequence[str]) -> Measures:
    """Look once. It costs what is under way, not what the ledger holds."""
    try:
        queues = look_at_queues(ledger, settings, families)
        with ledger.transaction() as cursor:
            agents = queries.agents(cursor, offline_after=settings.offline_after)
            figures = queries.figures(cursor)
    except (LedgerUnavailable, SchemaBehind):
        return Measures(ledger_answers=False, broker_answers=False)
    return Measures(True, queues.broker_problem is None, queues.queues, agents, figures)
