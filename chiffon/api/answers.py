"""What answers say. Times are UTC (RFC 3339), durations seconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from chiffon.api.problems import Problem
from chiffon.domain.states import State


def _in_utc(moment: datetime) -> str:
    """Always with microseconds, so that texts sort as times do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


Moment = Annotated[datetime, PlainSerializer(_in_utc, return_type=str)]


class Answer(BaseModel):
    """What every answer shares: it can be made from the values of the domain."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


class Placed(Answer):
    """The task that a dispatch got."""

    task_id: str
    request_id: str
    trace_id: str
    work_type: str
    status: State
    priority: int
    duplicate: bool = Field(description="An earlier dispatch made the task; nothing new is executed.")
    result: Any = Field(default=None, description="What the work returned, once it has completed.")
    error: dict[str, Any] | None = Field(default=None, description="What went wrong last: `type` and `message`.")


class PlacedItem(Placed):
    """One item of a batch: accepted (202) or a duplicate (200)."""

    code: int


class RefusedItem(Answer):
    """One item of a batch that was refused."""

    code: int
    problem: Problem


class BatchAnswer(Answer):
    """What became of each task, in the order sent."""

    items: list[PlacedItem | RefusedItem]


class Execution(Answer):
    """One real run."""

    execution: int = Field(description="The fencing token: only its holder can settle.")
    agent_id: str
    incarnation: int
    claimed_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    outcome: str | None = Field(
        description="completed, failed, timed_out, cancelled, retried, crashed, given_back, agent_lost; null: it runs."
    )
    error: dict[str, Any] | None


class TaskSummary(Answer):
    """A task in a list."""

    task_id: str
    request_id: str
    trace_id: str
    work_type: str
    status: State
    priority: int
    queue: str
    parameters: dict[str, Any]
    error: dict[str, Any] | None = Field(description="What went wrong last: `type` and `message`.")
    attempts: int = Field(description="Real runs so far.")
    agent_id: str | None = Field(description="Who claimed it last.")
    progress: dict[str, Any] | None = Field(description="What the work says of itself: `percent`, `note`.")
    labels: dict[str, str]
    created_at: Moment
    run_at: Moment | None = Field(description="When it is due, while it waits for its time.")
    expires_at: Moment | None
    queued_at: Moment | None = Field(description="When the broker confirmed its message.")
    started_at: Moment | None
    finished_at: Moment | None
    cancel_requested_at: Moment | None


class Task(TaskSummary):
    """A task with its result and its real runs."""

    result: Any = Field(description="What the work returned, once it has completed.")
    executions: list[Execution]


class Step(Answer):
    """A step of a task, as its history has it."""

    task_id: str
    number: int = Field(description="From 1, by task.")
    at: Moment
    status: State = Field(description="What it led to.")
    execution: int | None = Field(description="The run that it belongs to.")
    agent_id: str | None
    detail: str | None = Field(description="Why, where that does not go without saying.")


class TaskList(Answer):
    """Tasks, newest first."""

    items: list[TaskSummary]
    next_cursor: str | None = Field(description="For the next page; null at the end.")


class WorkType(Answer):
    """A kind of work."""

    name: str
    description: str
    parameters_schema: dict[str, Any] = Field(serialization_alias="schema", description="Of `parameters`: JSON Schema.")
    timeout_seconds: float = Field(description="A run that takes longer is stopped.")
    max_retries: int
    queue: str
    agents_online: int


class WorkTypeList(Answer):
    """What can be dispatched here, by name."""

    items: list[WorkType]
    next_cursor: None = None


class Agent(Answer):
    """An agent's newest life."""

    agent_id: str
    incarnation: int
    hostname: str
    pid: int
    slots: int = Field(description="How much it does at once.")
    queues: list[str]
    work_types: list[str]
    status: str = Field(description="online, busy (every slot taken), draining, offline.")
    started_at: Moment
    last_heartbeat_at: Moment
    current_task_ids: list[str]


class AgentList(Answer):
    """Every agent, by name."""

    items: list[Agent]
    next_cursor: None = None


class Queue(Answer):
    """A queue: what the broker says (null while it is away), and what the ledger says."""

    queue: str
    ready: int | None = Field(description="Messages that wait for a consumer.")
    consumers: int | None
    unacked: int | None = Field(
        description="Delivered and not acknowledged; null unless CHIFFON_MANAGEMENT_URL is set."
    )
    waiting: int = Field(description="Tasks that are pending or queued.")
    running: int
    oldest_age_seconds: float | None = Field(
        description="For how long the task has waited that waits longest: since it was accepted, its time came, or it "
        "was given back, taken over or replayed. One that waits for another task's end does not count."
    )


class QueueList(Answer):
    """Every queue, `work_queue` first."""

    items: list[Queue]
    next_cursor: None = None
    broker_problem: str | None = Field(description="Why the broker's figures are missing.")


class Letter(Answer):
    """A dead letter."""

    id: str = Field(description="The same at every look.")
    queue: str | None = Field(description="Where it died; null for one that was published to dlx_queue by hand.")
    reason: str | None = Field(description="RabbitMQ's word (rejected, expired, maxlen, delivery_limit) or a sentence.")
    task_id: str | None = Field(description="The task that it names, whether or not the ledger has it.")
    work_type: str | None
    doorbell: bool = Field(description="It rings for a task of the ledger: the row is what counts, not the body.")
    copies: int = Field(description="How often it lies there, as far as this page reads.")
    headers: dict[str, Any]
    properties: dict[str, Any]
    body: str = Field(description="As it was published; a doorbell says nothing of a large task.")
    body_encoding: str = Field(description="text (UTF-8) or base64.")
    first_death_at: Moment | None
    died_at: Moment | None


class LetterList(Answer):
    """Dead letters, oldest first (from RabbitMQ 4.3 a quorum queue puts urgent ones first); all stay where they are."""

    items: list[Letter]
    next_cursor: str | None = Field(description="For the next page; null at the end.")


class Kept(Answer):
    """A letter that stays, and why."""

    id: str
    why: str


class LettersHandled(Answer):
    """What became of the letters; with `dry_run`, only how many there are."""

    dry_run: bool
    matched: int
    replayed: int = Field(description="Their work is under way again.")
    discarded: int
    settled: int = Field(description="Their task had been replayed or had ended meanwhile: only the letter went.")
    kept: list[Kept]
    missing: list[str] = Field(description="Ids that no letter has.")
    unconfirmed: int = Field(description="Stayed, since the broker did not confirm what was published in their place.")
    why: str | None = Field(description="Why not.")


class Alive(Answer):
    """The process answers."""

    status: str = "alive"


class Ready(Answer):
    """Work is taken in."""

    status: str = Field(description="ready; or degraded: work is taken in and waits, for the broker is down.")
    ledger: str = "ok"
    broker: str = Field(description="ok, unreachable, or blocked: it takes no messages.")
    ringer: str = Field(description="What publishes: idle (nothing to publish yet), connected, waiting, or dead.")
    detail: str | None = Field(description="Why it is degraded.")
