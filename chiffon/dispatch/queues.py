"""Queues: what waits where, from the broker and from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chiffon.bus.depths import Depth, depths
from chiffon.bus.topology import Topology
from chiffon.config import Settings
from chiffon.dispatch.broker import asking
from chiffon.domain.errors import BrokerUnavailable
from chiffon.domain.views import AgentView, QueueFigures
from chiffon.ledger import queries
from chiffon.ledger.connect import Ledger

_PATIENCE = 2.0  # seconds for each answer of the broker


@dataclass(frozen=True)
class QueueState:
    """One queue. ``ready consumers unacked`` are the broker's, None while it is away; the rest is the ledger's.

    ``unacked`` is None too unless a management URL is set. ``oldest_age_seconds``: as in `QueueFigures`.
    """

    queue: str
    ready: int | None
    consumers: int | None
    unacked: int | None
    waiting: int
    running: int
    oldest_age_seconds: float | None


@dataclass(frozen=True)
class QueueStates:
    """Every queue; ``broker_problem``: why the broker's figures are missing."""

    queues: Sequence[QueueState]
    broker_problem: str | None


def look_at_queues(ledger: Ledger, settings: Settings, families: Sequence[str]) -> QueueStates:
    """The state of every queue that the caller, an agent or a task knows of. Raises LedgerUnavailable."""
    with ledger.transaction() as cursor:
        figures = queries.queues(cursor)
        agents = queries.agents(cursor, offline_after=settings.offline_after)
    return queue_states(settings, families, figures, agents, management_url=settings.management_url)


def queue_states(
    settings: Settings,
    families: Sequence[str],
    figures_of_ledger: Sequence[QueueFigures],
    agents: Sequence[AgentView],
    *,
    management_url: str = "",
) -> QueueStates:
    """The state of every queue that the caller, the ledger's figures or an agent knows of."""
    figures = {found.queue: found for found in figures_of_ledger}
    known = {*families, *figures, *(name for agent in agents for name in agent.queues)}
    topology = Topology(settings.queue_type, tuple(sorted(known)))
    problem = None
    try:
        with asking(settings.broker_url, name="chiffon queues", patience=_PATIENCE) as connection:
            found = {depth.queue: depth for depth in depths(connection, topology, management_url)}
    except BrokerUnavailable as error:
        found, problem = {}, str(error)
    names = list(dict.fromkeys([*topology.queue_names, *found]))
    return QueueStates([_state(name, found.get(name), figures.get(name)) for name in names], problem)


def _state(name: str, depth: Depth | None, figures: QueueFigures | None) -> QueueState:
    return QueueState(
        queue=name,
        ready=depth.ready if depth else None,
        consumers=depth.consumers if depth else None,
        unacked=depth.unacked if depth else None,
        waiting=figures.waiting if figures else 0,
        running=figures.running if figures else 0,
        oldest_age_seconds=figures.oldest_age_seconds if figures else None,
    )
