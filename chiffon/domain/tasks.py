"""The values that pass between the rooms: a task to be, a task claimed, a delivery's fate."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from chiffon.domain.work import DEFAULT_QUEUE


@dataclass(frozen=True)
class NewTask:
    """A task to be written down. Durations are seconds.

    ``arguments`` are positional ones, which only ordinary Celery tasks have; ``canvas`` is what Celery's canvas needs
    to go on (``root_id parent_id group embed headers``). ``keyed``: whether ``request_id`` takes an idempotency key.
    ``fresh``: whether ``task_id`` was made up for it just now: nobody else can have it.
    """

    task_id: str
    request_id: str
    trace_id: str
    work_type: str
    fingerprint: str
    parameters: dict[str, Any] = field(default_factory=dict)
    arguments: list[Any] = field(default_factory=list)
    canvas: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    priority: int = 3
    queue: str = DEFAULT_QUEUE
    timeout: float | None = None
    soft_timeout: float | None = None
    max_retries: int | None = None
    delay: float | None = None
    run_at: datetime | None = None
    expires_in: float | None = None
    expires_at: datetime | None = None
    keyed: bool = True
    fresh: bool = False
    origin: str = "http"


@dataclass(frozen=True)
class Accepted:
    """The task was written down by this call."""

    task_id: str


@dataclass(frozen=True)
class Duplicate:
    """An earlier dispatch with the same ``request_id`` or ``task_id`` is this one."""

    task_id: str


@dataclass(frozen=True)
class KeyReused:
    """The ``request_id`` belongs to ``task_id``, which is of another work type or has other parameters."""

    task_id: str


@dataclass(frozen=True)
class IdTaken:
    """The ``task_id`` belongs to a task with another payload."""

    task_id: str


Acceptance = Accepted | Duplicate | KeyReused | IdTaken
"""What became of a dispatch."""


class Ring(NamedTuple):
    """One leased ring of a task: what its doorbell says. ``ring_no`` is the lease that the confirm must still hold."""

    task_id: str
    ring_no: int
    request_id: str
    trace_id: str
    work_type: str
    queue: str
    priority: int
    parameters: dict[str, Any]
    arguments: list[Any]
    canvas: dict[str, Any]
    retries: int


class Claim(NamedTuple):
    """A task that this agent may run now. ``execution`` is the fencing token; durations are seconds."""

    task_id: str
    execution: int
    request_id: str
    trace_id: str
    work_type: str
    queue: str
    priority: int
    parameters: dict[str, Any]
    arguments: list[Any]
    canvas: dict[str, Any]
    fingerprint: str
    timeout: float | None
    soft_timeout: float | None
    max_retries: int | None
    retries: int
    crashes: int
    give_backs: int
    attempts: int
    origin: str
    queued_at: datetime | None
    age: float


@dataclass(frozen=True)
class Settled:
    """The task has ended, or somebody else will: the delivery was only a doorbell."""

    task_id: str
    status: str


@dataclass(frozen=True)
class HeldElsewhere:
    """Another incarnation runs it."""

    task_id: str
    incarnation: int


@dataclass(frozen=True)
class NotDue:
    """It waits for its time, or for the task whose end it takes: the sweeper rings when it is due."""

    task_id: str


@dataclass(frozen=True)
class Absent:
    """The ledger has no such task."""

    task_id: str


Fate = Claim | Settled | HeldElsewhere | NotDue | Absent
"""What a claim found."""
