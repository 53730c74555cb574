"""When to try again: a policy that is given its dice."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_WAIT = 10 * 365 * 86_400.0
"""Seconds. Beyond the year 9999 no Python client can read a moment, and one such row spoils every list it is in."""


class Retry(Exception):
    """Raised by work to be run again.

    ``after``: seconds to wait, from 0 to ten years; None leaves it to the policy.
    """

    def __init__(self, message: str = "the work asked to be run again", *, after: float | None = None) -> None:
        if after is not None and not 0 <= after <= LONGEST_WAIT:
            raise ValueError(f"after must be between 0 seconds and ten years, not {after}")
        super().__init__(message)
        self.after = after


class Fail(Exception):
    """Raised by work that must not be retried: the task is `failed` at once, whatever retries are left."""


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with full jitter. ``base`` and ``ceiling`` are seconds."""

    base: float = 1.0
    ceiling: float = 600.0

    def wait(self, retries: int, dice: float) -> float:
        """Seconds to wait before the next run after ``retries`` earlier retries; ``dice`` is uniform in [0, 1)."""
        return min(self.ceiling, self.base * 2.0 ** min(retries, 60)) * dice
