"""What a claimed task knows of the hand-over by which it goes to the pool with others."""

from __future__ import annotations

from typing import Any, Protocol


class Together(Protocol):
    """What goes to a process of the pool with others. Each ``request`` is a `ClaimedRequest`."""

    def recall(self) -> None:
        """Have those that have not begun come back."""

    def catch_up(self, request: Any) -> bool:
        """Note whether a member has begun; False: how it ended is on its way."""
