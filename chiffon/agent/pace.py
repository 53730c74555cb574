"""How long runs take, by those that were seen last: what an agent may hold, and what may share a hand-over."""

from __future__ import annotations

import math

SEEN = 20
"""Runs of a work type that must have been seen before anything is concluded from them."""

NEWEST_COUNTS = 0.1
"""The weight of the newest run in the mean."""

LONGEST_SHORT = 0.05
"""Seconds: what takes longer is not short, however much may be held."""

LEAST = 1 / 256
"""The part of a slot that the shortest run counts for."""


class Pace:
    """Moving means by work type. Used by one thread.

    ``ahead``: seconds of work that a slot may hold beside what it runs; 0: none.
    """

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead
        self._short = min(ahead / 4, LONGEST_SHORT)
        self._seconds: dict[str, float] = {}
        self._seen: dict[str, int] = {}

    def ended(self, work_type: str, seconds: float) -> None:
        """A run has ended."""
        before = self._seconds.get(work_type, seconds)
        self._seconds[work_type] = before + (seconds - before) * NEWEST_COUNTS
        self._seen[work_type] = self._seen.get(work_type, 0) + 1

    def lasts(self, work_type: str, seconds: float) -> None:
        """A run goes on for so long already: whoever is like it may do so too."""
        self._seconds[work_type] = max(seconds, self._seconds.get(work_type, seconds))

    def expected(self, work_type: str) -> float:
        """Seconds that the next run of it takes; infinity if too few were seen."""
        return self._seconds[work_type] if self._seen.get(work_type, 0) >= SEEN else math.inf

    def is_short(self, work_type: str) -> bool:
        """Whether it may share a hand-over."""
        return self.expected(work_type) < self._short

    def share(self, work_type: str) -> float:
        """The part of a slot that a task of it counts for while it is held: 1 if it may run for long."""
        if not self.ahead:
            return 1.0
        return min(1.0, max(LEAST, self.expected(work_type) / self.ahead))
