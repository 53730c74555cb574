"""What an agent sees of its queues, and which messages must have been lost by it (decision 0016).

"Queued too long while agents are idle" would never fire under load, and always while other queues idle. Instead: a
queue hands out the messages of one priority in the order in which they came; and to a consumer that has room it hands
out every message it has.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from datetime import datetime

from chiffon.dispatch.lost import Suspicion

_MARGIN = 2.0
"""Seconds by which two publishers' confirms may be written down in another order than the messages arrived."""


class Traffic:
    """Deliveries in, claims and room. Thread-safe. ``queues``: says which are consumed right now.

    ``heard``: when the broker was asked what it has answered last. A connection that nobody listens on any more brings
    nothing either, and that means nothing.
    """

    def __init__(
        self,
        queues: Callable[[], tuple[str, ...]],
        room: int,
        lost_after: float,
        heard: Callable[[], float] = lambda: math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queues = queues
        self._room = room
        self._lost_after = lost_after
        self._heard = heard
        self._clock = clock
        self._lock = threading.Lock()
        self._held = 0
        self._roomy_since: float | None = None
        # By queue and priority: the newest ring that was claimed long enough ago, and one that is getting there.
        self._passed: dict[tuple[str, int], datetime] = {}
        self._passing: dict[tuple[str, int], tuple[float, datetime]] = {}

    def make_room(self, room: int) -> None:
        """From now on the broker hands out so many messages at once."""
        with self._lock:
            self._room = room
            if self._held >= room:
                self._roomy_since = None

    @property
    def has_room(self) -> bool:
        """Whether the broker would hand out whatever it has."""
        return self._roomy_since is not None

    def has_had_room(self, seconds: float) -> bool:
        """Whether the broker has handed out whatever it had for so long."""
        since = self._roomy_since
        return since is not None and self._clock() - since >= seconds

    def connected(self) -> None:
        """Consuming has begun, with nothing in hand."""
        with self._lock:
            self._held = 0
            self._roomy_since = self._clock()

    def disconnected(self) -> None:
        """Nothing is known of the queues any more."""
        with self._lock:
            self._roomy_since = None
            self._passing.clear()

    def delivered(self) -> None:
        """A message came, and takes room until it is acknowledged or rejected."""
        with self._lock:
            self._held += 1
            if self._held >= self._room:
                self._roomy_since = None

    def done(self) -> None:
        """A message was acknowledged or rejected."""
        with self._lock:
            self._held -= 1
            if self._held < self._room and self._roomy_since is None:
                self._roomy_since = self._clock()

    def claimed(self, queue: str, priority: int, rung_at: datetime | None) -> None:
        """A message of that queue and priority was claimed; its ring had been confirmed at ``rung_at``."""
        if rung_at is None:
            return
        key = (queue, priority)
        with self._lock:
            self._promote(key)
            self._passing.setdefault(key, (self._clock(), rung_at))

    def suspicions(self) -> list[Suspicion]:
        """What must have been lost, by now."""
        with self._lock:
            for key in list(self._passing):
                self._promote(key)
            found = [
                Suspicion(queue, priority, rung_before=rung_at, older_than=_MARGIN)
                for (queue, priority), rung_at in self._passed.items()
            ]
            until = min(self._clock(), self._heard())
            if self._roomy_since is not None and until - self._roomy_since >= self._lost_after:
                found += [
                    Suspicion(queue, None, rung_before=None, older_than=self._lost_after) for queue in self._queues()
                ]
            self._passed.clear()
            return found

    def _promote(self, key: tuple[str, int]) -> None:
        claimed_at, rung_at = self._passing.get(key, (self._clock(), None))
        if rung_at is not None and self._clock() - claimed_at >= self._lost_after:
            del self._passing[key]
            self._passed[key] = rung_at
