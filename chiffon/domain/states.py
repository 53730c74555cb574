"""The state machine as a table; whatever else is known about states is computed from it."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """The public status of a task."""

    SCHEDULED = "scheduled"
    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    EXPIRED = "expired"
    DEAD_LETTERED = "dead_lettered"


S = State
ENDS = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED, S.TIMED_OUT, S.EXPIRED, S.DEAD_LETTERED})
"""The final states: a task that is in one of them is never run again, unless somebody replays it."""

BIRTHS = frozenset({S.PENDING, S.SCHEDULED, S.RUNNING, S.DEAD_LETTERED}) | ENDS
"""The states a row may be inserted in: accepted, claimed from a direct message, or copied by ``request_id``."""

STEPS = MappingProxyType(
    {
        S.SCHEDULED: frozenset({S.PENDING, S.CANCELLED, S.EXPIRED}),
        S.PENDING: frozenset({S.QUEUED, S.RUNNING}) | ENDS,
        S.QUEUED: frozenset({S.RUNNING, S.PENDING}) | ENDS,
        S.RUNNING: frozenset(
            {
                S.COMPLETED, S.FAILED, S.TIMED_OUT, S.CANCELLED, S.DEAD_LETTERED,
                S.RETRYING, S.PENDING, S.RUNNING,
            }
        ),
        S.RETRYING: frozenset({S.PENDING, S.RUNNING, S.CANCELLED, S.EXPIRED, S.DEAD_LETTERED}),
        S.COMPLETED: frozenset(),
        S.FAILED: frozenset({S.PENDING}),
        S.CANCELLED: frozenset({S.PENDING}),
        S.TIMED_OUT: frozenset({S.PENDING}),
        S.EXPIRED: frozenset({S.PENDING}),
        S.DEAD_LETTERED: frozenset({S.PENDING}),
    }
)  # fmt: skip
"""From each state, the states that one lawful step leads to."""

REPLAYABLE = frozenset(state for state in ENDS if S.PENDING in STEPS[state])
"""The ends a replay may reopen."""

WAITING = frozenset({S.SCHEDULED, S.PENDING, S.QUEUED, S.RETRYING})
"""Accepted, not running, not ended: what cancel and expiry may end at once."""

CELERY_STATES = MappingProxyType(
    {
        S.SCHEDULED: "PENDING",
        S.PENDING: "PENDING",
        S.QUEUED: "PENDING",
        S.RUNNING: "STARTED",
        S.RETRYING: "RETRY",
        S.COMPLETED: "SUCCESS",
        S.FAILED: "FAILURE",
        S.TIMED_OUT: "FAILURE",
        S.DEAD_LETTERED: "FAILURE",
        S.CANCELLED: "REVOKED",
        S.EXPIRED: "REVOKED",
    }
)
"""The word that Celery's `AsyncResult.state` has for each state."""


def may_step(origin: State, target: State) -> bool:
    """Whether the table has an arrow from ``origin`` to ``target``."""
    return target in STEPS[origin]
