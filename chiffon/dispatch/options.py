"""Options: the limits of what may be asked for beside the parameters, whichever door it comes by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from chiffon.domain import ids
from chiffon.domain.errors import InvalidInput, Problem
from chiffon.domain.retry import LONGEST_WAIT
from chiffon.domain.values import pointer_to

LABEL_KEY = r"[A-Za-z0-9][A-Za-z0-9_./-]{0,62}"
MAX_LABEL, MAX_LABELS = 255, 32
TWO_TIMES = "delay_seconds and run_at are two times: send one of them"
_LABEL_KEY = re.compile(LABEL_KEY)
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def checked_task_id(value: str) -> str:
    """``value``, if it may name a task. Raises ValueError."""
    if not ids.is_task_id(value):
        raise ValueError(f"must have 1-{ids.MAX_TASK_ID} printable characters")
    return value


def checked_request_id(value: str) -> str:
    """``value``, if it may be a key. Raises ValueError."""
    if not ids.is_request_id(value):
        raise ValueError(f"must have 1-{ids.MAX_REQUEST_ID} printable characters")
    return value


def checked_trace_id(value: str) -> str:
    """``value`` as 32 hex digits. Raises ValueError."""
    found = ids.trace_id_from(value)
    if found is None:
        raise ValueError("must have 32 hex digits (or be a UUID), not all of them zero")
    return found


def checked_labels(value: dict[str, str]) -> dict[str, str]:
    """``value``, if each key is one that tasks can be found by. Raises ValueError."""
    for key in value:
        if not _LABEL_KEY.fullmatch(key):
            raise ValueError(f"{key!a} is no key: 1-63 letters, digits and _ . / -, a letter or digit first")
    return value


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
    task_id: Annotated[str, AfterValidator(checked_task_id)] = Field(default_factory=ids.new_task_id)
    request_id: Annotated[str, AfterValidator(checked_request_id)] = Field(default_factory=ids.new_request_id)
    trace_id: Annotated[str, AfterValidator(checked_trace_id)] = Field(default_factory=ids.new_trace_id)
    timeout_seconds: Annotated[float, Field(gt=0, le=LONGEST_WAIT)] | None = None
    max_retries: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    delay_seconds: Annotated[float, Field(ge=0, le=LONGEST_WAIT)] | None = None
    run_at: Annotated[datetime, AfterValidator(_moment)] | None = None
    expires_in_seconds: Annotated[float, Field(gt=0, le=LONGEST_WAIT)] | None = None
    labels: Annotated[dict[str, Annotated[str, Field(max_length=MAX_LABEL)]], AfterValidator(checked_labels)] = Field(
        max_length=MAX_LABELS
    )

    @model_validator(mode="after")
    def _one_time(self) -> Self:
        if self.delay_seconds is not None and self.run_at is not None:
            raise ValueError(TWO_TIMES)
        return self


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
