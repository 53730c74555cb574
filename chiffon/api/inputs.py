"""What requests may say: strict models, in which true and "3" are no integers and unknown fields are refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from chiffon.dispatch import options
from chiffon.dispatch.options import LABEL_KEY, MAX_LABEL, MAX_LABELS, TWO_TIMES
from chiffon.domain.ids import MAX_REQUEST_ID, is_uuid
from chiffon.domain.states import State
from chiffon.domain.values import MAX_DEPTH

YEAR = 365 * 86_400
_LABEL = re.compile(rf"({LABEL_KEY})[:=](.*)", re.DOTALL)
_DIGITS = re.compile(r"[0-9]{1,9}")
_LAST = datetime(9999, 1, 1, tzinfo=UTC)


def _moment(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError("must be text such as 2030-01-31T12:00:00Z (RFC 3339)")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("must be a time such as 2030-01-31T12:00:00Z (RFC 3339)") from None
    if moment.tzinfo is None:
        raise ValueError("must say its offset from UTC, as 2030-01-31T12:00:00Z does")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is beyond the calendar") from None
    if not moment < _LAST:
        raise ValueError("must be before the year 9999")
    return moment


def _task_id(value: str) -> str:
    if not is_uuid(value):
        raise ValueError("must be a UUID, such as 0190a0e8-7b1c-7cc3-98c4-dc0c0c07398f")
    return value  # in its own case: so it is asked for later, and so a message names it


def _text(value: str) -> str:
    if not value or "\x00" in value:
        raise ValueError("must not be empty, nor contain NUL")
    return value


def _count(value: object) -> object:
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    raise ValueError("must be a whole number")


def _label(value: object) -> tuple[str, str]:
    found = _LABEL.fullmatch(value) if isinstance(value, str) and "\x00" not in value else None
    if found is None:
        raise ValueError("must be key:value (or key=value)")
    return found[1], found[2]


Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
RequestId = Annotated[str, Field(min_length=1, max_length=MAX_REQUEST_ID), AfterValidator(options.checked_request_id)]
TraceId = Annotated[
    str,
    AfterValidator(options.checked_trace_id),
    Field(description="32 hex digits (W3C Trace Context), or a UUID.", examples=["4bf92f3577b34da6a3ce929d0e0e4736"]),
]
NewTaskId = Annotated[str, AfterValidator(_task_id), WithJsonSchema({"type": "string", "format": "uuid"})]
AnyTaskId = Annotated[str, AfterValidator(options.checked_task_id)]
Text = Annotated[str, Field(max_length=500), AfterValidator(_text)]
LabelValue = Annotated[str, Field(max_length=MAX_LABEL)]
Limit = Annotated[int, BeforeValidator(_count)]
Label = Annotated[
    tuple[str, str], BeforeValidator(_label, json_schema_input_type=str), WithJsonSchema({"type": "string"})
]


class Body(BaseModel):
    """The strictness of every JSON body."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Query(BaseModel):
    """The strictness of every query: its values are text."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Dispatch(Body):
    """Work to be done."""

    work_type: str = Field(
        min_length=1, max_length=200, description="What to do; GET /work-types lists what there is.", examples=["echo"]
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description=f"What the work takes, by name; at most {MAX_DEPTH} levels deep.",
        examples=[{"input": "hello"}],
    )
    priority: int = Field(default=3, ge=1, le=5, description="5 is done first.")
    request_id: RequestId | None = Field(
        default=None,
        description="The idempotency key: a second dispatch with it gets the same task. Also as Idempotency-Key.",
    )
    trace_id: TraceId | None = Field(
        default=None, description="Carried everywhere; taken from the traceparent header when it is absent."
    )
    task_id: NewTaskId | None = Field(default=None, description="A UUID of the caller's own; made up when absent.")
    timeout_seconds: float | None = Field(
        default=None, gt=0, le=YEAR, description="A run that takes longer is stopped; the work type's own when absent."
    )
    max_retries: int | None = Field(
        default=None, ge=0, le=1000, description="How often a failed run is repeated; the work type's own when absent."
    )
    delay_seconds: float | None = Field(default=None, ge=0, le=10 * YEAR, description="Run it so much later.")
    run_at: Moment | None = Field(default=None, description="Run it then; not together with delay_seconds.")
    expires_in_seconds: float | None = Field(
        default=None, gt=0, le=10 * YEAR, description="Not worth starting after so long: it becomes `expired`."
    )
    labels: Annotated[dict[str, LabelValue], AfterValidator(options.checked_labels)] = Field(
        default_factory=dict, max_length=MAX_LABELS, description="The caller's own notes, to find tasks by."
    )

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        if self.delay_seconds is not None and self.run_at is not None:
            raise ValueError(TWO_TIMES)
        return self


class Batch(Body):
    """Up to 1,000 dispatches, accepted by one commit."""

    tasks: list[Any] = Field(
        min_length=1,
        max_length=1000,
        json_schema_extra={"items": {"$ref": "#/components/schemas/Dispatch"}},
    )


class TaskQuery(Query):
    """Which tasks to list, newest first."""

    status: State | None = None
    work_type: Text | None = None
    trace_id: TraceId | None = None
    request_id: RequestId | None = None
    agent_id: Text | None = Field(default=None, description="Whose newest claim the task is, or was.")
    label: Label | None = Field(default=None, description="`key:value` (or `key=value`).")
    since: Moment | None = Field(default=None, description="Created then or later.")
    until: Moment | None = Field(default=None, description="Created before then.")
    limit: Limit = Field(default=50, ge=1, le=500)
    cursor: str | None = Field(default=None, max_length=1000, description="The `next_cursor` of the page before.")


class LetterQuery(Query):
    """Which dead letters to list."""

    queue: Text | None = Field(default=None, description="The queue that it died in.")
    reason: Text | None = Field(default=None, description="A part of the reason.")
    task_id: AnyTaskId | None = None
    work_type: Text | None = None
    until: Moment | None = Field(default=None, description="Died before then.")
    limit: Limit = Field(default=50, ge=1, le=1000)
    cursor: str | None = Field(default=None, max_length=1000, description="The `next_cursor` of the page before.")


class LetterFilter(Body):
    """Letters by what they have in common: every member that is there must fit."""

    queue: Text | None = Field(default=None, description="The queue that it died in.")
    reason: Text | None = Field(default=None, description="A part of the reason.")
    task_id: AnyTaskId | None = None
    work_type: Text | None = None
    until: Moment | None = Field(default=None, description="Died before then.")

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError('an empty filter means everything: send {"all": true} for that')
        return self


class LetterChoice(Body):
    """Which dead letters: exactly one of `ids`, `filter` and `all`."""

    ids: list[Text] | None = Field(
        default=None, min_length=1, max_length=10_000, description="As GET /dead-letters has."
    )
    filter: LetterFilter | None = None
    all: bool | None = Field(default=None, description="true: every letter there is.")
    dry_run: bool = Field(default=False, description="true: only count.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if self.all is False:
            raise ValueError("all can only be true: leave it out otherwise")
        if (self.ids, self.filter, self.all).count(None) != 2:
            raise ValueError("send exactly one of ids, filter and all")
        return self


class LetterReplay(LetterChoice):
    """Which dead letters to replay; `body` mends one of them."""

    body: dict[str, Any] | list[Any] | None = Field(
        default=None, description="With exactly one id: the message to publish instead. Not for a task of the ledger."
    )

    @model_validator(mode="after")
    def _one_mended(self) -> Self:
        if self.body is not None and (self.ids is None or len(self.ids) != 1):
            raise ValueError("body mends one letter: send exactly one id with it")
        return self
