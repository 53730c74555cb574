"""Resting: a step that fails again and again is left out for a while, so that it does not take the others along."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable


class Resting:
    """Steps by their names. ``rest``: seconds for which one is left out, from its second failure in a row on.

    The first says nothing of the step: whichever is under way when Postgres goes away fails.
    """

    def __init__(self, rest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest = rest
        self._clock = clock
        self._failures: Counter[str] = Counter()
        self._until: dict[str, float] = {}

    def rests(self, step: str) -> bool:
        """Whether it is left out now."""
        return self._clock() < self._until.get(step, 0.0)

    def succeeded(self, step: str) -> None:
        """It went through."""
        self._failures.pop(step, None)
        self._until.pop(step, None)

    def failed(self, step: str) -> None:
        """It did not."""
        self._failures[step] += 1
        if self._failures[step] > 1:
            self._until[step] = self._clock() + self._rest
