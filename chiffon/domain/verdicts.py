"""How a run came out, as values; the ledger writes them down, the agent translates them for Celery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class WorkError:
    """What went wrong, as it is shown: the exception's type, message and (where there is one) traceback."""

    type: str
    message: str
    module: str = "builtins"
    traceback: str | None = None
    arguments: tuple[Any, ...] | None = None
    """The exception's own arguments, if JSON can say them: Celery's clients build it again from these."""


@dataclass(frozen=True)
class Completed:
    """The work returned. ``result`` is JSON text that the ledger can keep."""

    result: str


@dataclass(frozen=True)
class Failed:
    """The work said no, and no retry is left."""

    error: WorkError


@dataclass(frozen=True)
class TimedOut:
    """The run was stopped by its time limit."""

    error: WorkError


@dataclass(frozen=True)
class Cancelled:
    """Somebody asked for it."""

    error: WorkError


@dataclass(frozen=True)
class DeadLettered:
    """It cannot be run at all."""

    error: WorkError


@dataclass(frozen=True)
class RetryLater:
    """Run it again ``after`` seconds, by the ledger's clock."""

    after: float
    error: WorkError


@dataclass(frozen=True)
class Crashed:
    """The process that ran it died. Charged: after ``CHIFFON_MAX_CRASHES`` of them the task is dead-lettered."""

    error: WorkError


@dataclass(frozen=True)
class GivenBack:
    """Nobody's fault: run it again, ``after`` seconds from now. ``started``: whether the work had begun.

    A claim that never started is withdrawn, and its execution struck from the log.
    """

    error: WorkError
    started: bool
    after: float = 0.0


@dataclass(frozen=True)
class Replaced:
    """The work has put other work in its own place, under its id: run that."""


Verdict = Completed | Failed | TimedOut | Cancelled | DeadLettered | RetryLater | Crashed | GivenBack | Replaced
"""How a run came out."""
