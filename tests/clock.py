"""A clock for what counts seconds."""

from __future__ import annotations


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now
