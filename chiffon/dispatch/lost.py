"""Which messages must have been lost: what agents saw, and what the broker says of its queues (decision 0016)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from chiffon.bus.depths import depths
from chiffon.bus.topology import Topology
from chiffon.config import Settings
from chiffon.dispatch.broker import asking

_PATIENCE = 2.0  # seconds for each answer of the broker


@dataclass(frozen=True)
class Suspicion:
    """Messages of a queue that must have been lost: those still `queued` that were rung long ago.

    ``priority``: None is any. ``rung_before``: a moment of the ledger's clock; None is now. ``older_than``: seconds
    before that.
    """

    queue: str
    priority: int | None
    rung_before: datetime | None
    older_than: float


class EmptyQueues:
    """The queues that were found empty at every look for some time. ``after``: seconds.

    Who is never without work, for another queue never runs dry, has no other way to see that this one lost something.
    """

    def __init__(self, after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._after = after
        self._clock = clock
        self._since: dict[str, float] = {}

    def look(self, ready: Mapping[str, int]) -> list[str]:
        """What the broker has ready in each queue that was asked for; those that are empty for long."""
        now = self._clock()
        self._since = {queue: self._since.get(queue, now) for queue, count in ready.items() if count == 0}
        return [queue for queue, since in self._since.items() if now - since >= self._after]


def ask_ready(settings: Settings, queues: Sequence[str]) -> dict[str, int]:
    """How many messages each queue has ready; none if it is not there. Raises BrokerUnavailable."""
    topology = Topology(settings.queue_type, tuple(queues))
    with asking(settings.broker_url, name="chiffon sweeper", patience=_PATIENCE) as connection:
        return {depth.queue: depth.ready for depth in depths(connection, topology) if depth.queue in queues}
