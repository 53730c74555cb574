"""What a piece of work may know of itself, and say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class WorkContext:
    """Handed to a parameter annotated with this class.

    ``attempt`` counts from 1. ``deadline`` is the moment (UTC) at which the run is stopped.
    """

    task_id: str
    trace_id: str
    request_id: str
    attempt: int
    deadline: datetime | None
    _report: Callable[[float | None, str | None], None] = field(repr=False)
    _ask_cancelled: Callable[[], bool] = field(repr=False)

    def progress(self, percent: float | None = None, note: str | None = None) -> None:
        """Say how far the work is: ``percent`` 0-100, ``note`` one line. Shown by ``GET /tasks/{task_id}``."""
        if percent is not None and not 0 <= percent <= 100:
            raise ValueError(f"percent must be between 0 and 100, not {percent}")
        self._report(percent, note)

    def is_cancelled(self) -> bool:
        """Whether somebody asked for this task to be cancelled: clean up, and raise. (What is returned is a result.)"""
        return self._ask_cancelled()
