"""What is shown: tasks, executions, agents and queues as their readers see them. Times bear their zone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class ExecutionView:
    """One real run. ``outcome``: completed, failed, timed_out, cancelled, retried, crashed, given_back, agent_lost;
    None while it runs."""

    execution: int
    agent_id: str
    incarnation: int
    claimed_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    outcome: str | None
    error: dict[str, Any] | None


@dataclass(frozen=True)
class TaskView:
    """A task as `GET /tasks/{task_id}` shows it; lists leave ``executions`` and ``result`` empty."""

    task_id: str
    request_id: str
    trace_id: str
    work_type: str
    status: str
    priority: int
    queue: str
    parameters: dict[str, Any]
    result: Any
    error: dict[str, Any] | None
    attempts: int
    agent_id: str | None
    progress: dict[str, Any] | None
    labels: dict[str, str]
    created_at: datetime
    run_at: datetime | None
    expires_at: datetime | None
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    executions: tuple[ExecutionView, ...] = ()


@dataclass(frozen=True)
class TaskFilter:
    """Which tasks a list shows; None means any. ``after``: the (created_at, task_id) of the last one shown."""

    status: str | None = None
    work_type: str | None = None
    trace_id: str | None = None
    request_id: str | None = None
    agent_id: str | None = None
    label: tuple[str, str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    after: tuple[datetime, str] | None = None


@dataclass(frozen=True)
class HistoryEntry:
    """One step of a task, numbered from 1."""

    number: int
    at: datetime
    status: str
    execution: int | None
    agent_id: str | None
    detail: str | None


@dataclass(frozen=True)
class TaskSteps:
    """Some steps of a task, in order. ``is_over``: it has ended, and these are the last; until somebody replays it.

    ``progress``: what its work says of itself, null unless it has said something in this run.
    """

    steps: Sequence[HistoryEntry]
    progress: dict[str, Any] | None
    is_over: bool


@dataclass(frozen=True)
class AgentView:
    """An agent's newest life. ``status``: online, busy (every slot taken), draining, offline."""

    agent_id: str
    incarnation: int
    hostname: str
    pid: int
    slots: int
    queues: tuple[str, ...]
    work_types: tuple[str, ...]
    status: str
    started_at: datetime
    last_heartbeat_at: datetime
    current_task_ids: tuple[str, ...]


@dataclass(frozen=True)
class RecentEnds:
    """Tasks of one work type that have ended so in the last minute. ``run_seconds``: by quantile; none if none ran.

    ``work_type``: ``other`` for all that nobody knows.
    """

    work_type: str
    status: str
    many: int
    run_seconds: dict[float, float]


@dataclass(frozen=True)
class LedgerFigures:
    """What the ledger knows beside its queues. ``delayed``: by state; ``owed``: dead letters."""

    delayed: dict[str, int]
    owed: int
    recent: Sequence[RecentEnds]


@dataclass(frozen=True)
class QueueFigures:
    """What the ledger knows of a queue.

    ``oldest_age_seconds``: for how long the task has waited for an agent that waits longest, None if none does. One
    whose time came later, or that ran before, waits since then; one that waits for another's end is not counted.
    """

    queue: str
    waiting: int
    running: int
    oldest_age_seconds: float | None
