"""Options: the limits of what may be asked for beside the parameters, whichever door it comes by."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from chiffon.domain import ids
from chiffon.domain.errors import InvalidInput, Problem
from chiffon.domain.retry import LONGEST_WAIT
from chiffon.domain.values import pointer_to

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def _task_id(value: str) -> str:
    if not ids.is_task_id(value):
        raise ValueError(f"must have 1-{ids.MAX_TASK_ID} printable characters")
    return value


def _request_id(value: str) -> str:
    if not ids.is_request_id(value):
        raise ValueError(f"must have 1-{ids.MAX_REQUEST_ID} printable characters")
    return value


def _trace_id(value: str) -> str:
    found = ids.trace_id_from(value)
    if found is None:
        raise ValueError("must have 32 hex digits (or be a UUID), not all of them zero")
    return found


def _moment(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("must have a time zone")
    if not _FIRST <= value < _LAST:
        raise ValueError("must be between the years 1970 and 9999")
    return value


class Options(BaseModel):
    """What is asked for beside the parameters. Durations are seconds; absent ids are made up."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    priority: Annotated[int, Field(ge=1, le=5)]
    task_id: Annotated[str, AfterValidator(_task_id)] = Field(default_factory=ids.new_task_id)
    request_id: Annotated[str, AfterValidator(_request_id)] = Field(default_factory=ids.new_request_id)
    trace_id: Annotated[str, AfterValidator(_trace_id)] = Field(default_factory=ids.new_trace_id)
    timeout_seconds: Annotated[float, Field(gt=0, le=LONGEST_WAIT)] | None = None
    max_retries: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    delay_seconds: Annotated[float, Field(ge=0, le=LONGEST_WAIT)] | None = None
    run_at: Annotated[datetime, AfterValidator(_moment)] | None = None
    expires_in_seconds: Annotated[float, Field(gt=0, le=LONGEST_WAIT)] | None = None
    labels: dict[str, str]


def checked(options: Mapping[str, Any]) -> Options:
    """The options that are there (None is absent), each within its limits. Raises InvalidInput."""
    try:
        return Options.model_validate({name: value for name, value in options.items() if value is not None})
    except ValidationError as found:
        problems = tuple(
            Problem(pointer_to(error["loc"]), error["msg"].removeprefix("Value error, "))
            for error in found.errors(include_url=False)
        )
    raise InvalidInput("; ".join(f"{problem.pointer}: {problem.detail}" for problem in problems), problems)
