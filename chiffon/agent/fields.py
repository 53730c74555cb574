"""The fields of Celery's protocol 2, one by one, as a sender may have filled them in.

Each raises MalformedMessage, with the reason, for what does not fit.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from chiffon.bus.letters import DOORBELL, is_short
from chiffon.bus.postmortem import BROKERS_OWN
from chiffon.domain import ids
from chiffon.domain.errors import InvalidInput, MalformedMessage
from chiffon.domain.retry import LONGEST_WAIT
from chiffon.domain.values import canonical, check_value
from chiffon.domain.work import is_queue

_EMBEDDED = {"callbacks": list, "errbacks": list, "chain": list, "chord": dict}
_MOST_PARTS = 2**31 - 1
"""Of one chord, as Postgres' integers go."""

MAX_HEADERS = 32_768
"""Bytes of the carried headers as JSON, at most. As AMQP has them they may be more than twice as many; a doorbell says
other things beside them, and all must go in one frame: 131,072 bytes, unless a broker wants less."""

_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
_CARRIED = ("group_index", "ignore_result", "replaced_task_nesting", "shadow", "stamped_headers", "stamps", "reply_to")
"""Headers of protocol 2 that a run needs beside those that have columns."""

_CELERYS = frozenset(_CARRIED) | {
    "lang", "task", "id", "root_id", "parent_id", "group", "eta", "expires", "retries", "timelimit", "argsrepr",
    "kwargsrepr", "origin", "compression", "request_id", "trace_id", "args", "kwargs", "properties", "correlation_id",
    "hostname", "delivery_info", "is_eager", "callbacks", "errbacks", "chain", "chord", DOORBELL,
}  # fmt: skip
"""Names that mean something to Celery, here or in a run's context: none of them is the sender's own."""


def canvas(headers: dict[str, Any], embed: Any) -> dict[str, Any]:
    """What the canvas needs to go on, as `NewTask.canvas` has it. ``embed``: the third item of the body."""
    if embed is not None and not isinstance(embed, dict):
        raise MalformedMessage("the third item of the body is neither an object nor null")
    kept = {name: value for name, value in (embed or {}).items() if value and name in _EMBEDDED}
    for name, value in kept.items():
        members = value if isinstance(value, list) else [value]
        if not isinstance(value, _EMBEDDED[name]) or not all(isinstance(member, dict) for member in members):
            raise MalformedMessage(f"{name} are no signatures")
        for member in members:
            if not isinstance(member.get("task"), str) or not isinstance(member.get("options", {}), dict):
                raise MalformedMessage(f"{name} holds a signature without a task, or with options that are no object")
            if not _is_size(member.get("chord_size")):
                raise MalformedMessage(f"{name} holds a signature whose chord_size is no number of tasks")
    carried = {name: value for name in _CARRIED if (value := headers.get(name)) not in (None, "", {}, [])}
    _check_carried(carried)
    carried |= _senders_own(headers)
    found = {
        "root_id": optional_id(headers, "root_id"),
        "parent_id": optional_id(headers, "parent_id"),
        "group": optional_id(headers, "group"),
        "embed": kept or None,
        "headers": carried or None,
    }
    check_value(found, "/headers")
    _check_sayable(carried)
    return {name: value for name, value in found.items() if value is not None}


def legible_canvas(headers: dict[str, Any], embed: Any) -> dict[str, Any]:
    """As `canvas`, of a message that cannot be read: whatever does not fit is left out."""
    parts = [({name: headers.get(name)}, None) for name in ("root_id", "parent_id", "group", "group_index")]
    found: dict[str, Any] = {}
    for named, embedded in [*parts, ({}, embed)]:
        with suppress(InvalidInput, MalformedMessage):
            found |= canvas(named, embedded)
    return found


def _is_size(value: Any) -> bool:
    """Whether the ledger can count by it: a chord's parts, or one of them. It need not be said."""
    return value is None or (type(value) is int and 0 <= value <= _MOST_PARTS)


def _senders_own(headers: dict[str, Any]) -> dict[str, Any]:
    """Headers that only the sender and the work know, as far as JSON can say them."""
    found = {}
    for name, value in headers.items():
        if name not in _CELERYS and not name.startswith(BROKERS_OWN):
            with suppress(InvalidInput):
                check_value({name: value})
                found[name] = value
    return found


def _check_sayable(carried: dict[str, Any]) -> None:
    """Raise MalformedMessage for what AMQP has no words for: its task could never be rung for."""
    if (size := len(canonical(carried).encode())) > MAX_HEADERS:
        raise MalformedMessage(f"the headers have {size} bytes, more than {MAX_HEADERS}")
    inside: list[Any] = [carried]
    while inside:
        match inside.pop():
            case dict() as table:
                if unsayable := [name for name in table if not is_short(name)]:
                    raise MalformedMessage(f"the headers have the name {unsayable[0][:50]}..., of more than 255 bytes")
                inside += table.values()
            case list() as members:
                inside += members
            case int() as number if not -(2**63) <= number < 2**63:
                raise MalformedMessage("the headers have an integer of more than 64 bits")


def _check_carried(carried: dict[str, Any]) -> None:
    stamped = carried.get("stamped_headers")
    if stamped is not None and not (isinstance(stamped, list) and all(isinstance(name, str) for name in stamped)):
        raise MalformedMessage("stamped_headers is no list of names")
    if not isinstance(carried.get("stamps", {}), dict):
        raise MalformedMessage("stamps is no object")
    if not isinstance(carried.get("shadow", ""), str):
        raise MalformedMessage("shadow is no text")
    if not _is_size(carried.get("group_index")):
        raise MalformedMessage("group_index is no task's number in its group")


def task_id(value: Any) -> str:
    """The id of a task."""
    if not isinstance(value, str) or not ids.is_task_id(value):
        raise MalformedMessage(f"the task id is no printable text of 1-{ids.MAX_TASK_ID} characters")
    return value


def request_id(value: Any) -> str:
    """The idempotency key."""
    if not isinstance(value, str) or not ids.is_request_id(value):
        raise MalformedMessage(f"the request_id is no printable text of 1-{ids.MAX_REQUEST_ID} characters")
    return value


def trace_id(value: Any, *, seed: str | None = None) -> str:
    """A given trace id; else one that all the tasks of one canvas share, by its root."""
    if value is None:
        return ids.derived_id("trace", seed).replace("-", "") if seed else ids.new_trace_id()
    found = ids.trace_id_from(value) if isinstance(value, str) else None
    if found is None:
        raise MalformedMessage("the trace_id is neither 32 hex digits nor a UUID")
    return found


def optional_id(headers: dict[str, Any], name: str) -> str | None:
    """The id of another task, if the header names one."""
    value = headers.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not ids.is_task_id(value):
        raise MalformedMessage(f"{name} is no id")
    return value


def queue(value: str | None) -> str | None:
    """Where a continuation is to wait, if its sender says so.

    What is declared or rung under any other name holds up the ringer, and with it everybody's work.
    """
    if value and not is_queue(value):
        raise MalformedMessage(f"{value[:100]!r} is no queue for work: those are work_queue and work_queue.<family>")
    return value or None


def priority(value: Any) -> int:
    """Celery's clients publish priority 0 by default: that is our default too. More than 5 is 5."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return 3
    return min(value, 5)


def limits(value: Any) -> tuple[float | None, float | None]:
    """The hard and the soft time limit, in seconds; none and 0 leave it to the task, as with Celery."""
    if value is None:
        return None, None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise MalformedMessage("timelimit is no pair of seconds")
    for seconds in value:
        if seconds is None:
            continue
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_WAIT:
            raise MalformedMessage("timelimit is no pair of seconds, of ten years at most")
    return value[0] or None, value[1] or None


def moment(value: Any, name: str) -> datetime | None:
    """A time in UTC; ``name``: of the header."""
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
        found = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        raise MalformedMessage(f"{name} is no ISO 8601 time") from None
    if not _FIRST <= found < _LAST:
        raise MalformedMessage(f"{name} is not between the years 1970 and 9999")
    return found


def id_or_none(value: Any) -> str | None:
    """The value if it can be an id."""
    return value if isinstance(value, str) and ids.is_task_id(value) else None
