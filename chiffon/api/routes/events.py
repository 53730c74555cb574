"""Events: the steps of a task as they come (Server-Sent Events)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from apiflask import APIBlueprint
from flask import request

from chiffon.api import kinds
from chiffon.api.answers import Step
from chiffon.api.contract import Header, Operation, Reply, Text, operation
from chiffon.api.parts import Parts, parts
from chiffon.api.problems import ApiProblem, Fault
from chiffon.api.request_log import about_task
from chiffon.api.streams import SERVER_ENDS
from chiffon.domain.states import State

blueprint = APIBlueprint("events", __name__, tag={"name": "Tasks"})

MEDIA_TYPE = "text/event-stream"

QUIET = 5.0
"""Seconds of silence, at most: proxies cut what is silent for long, and whoever has gone is noticed by writing.

Whose host still answers, by writing twice; whose host has gone too, by what it leaves unacknowledged.
"""

_COME_BACK_AFTER = 1000
"""Milliseconds after which a reader whose stream was cut is to ask again."""

_MOST = 2**31 - 1
"""The highest number that a step can have."""

_LAST_SEEN = Header(
    "Last-Event-ID",
    "The number of the last step that was seen: those after it are told. Readers of such streams send it themselves.",
    {"type": "integer", "minimum": 0, "maximum": _MOST},
)


@blueprint.get("/tasks/<task_id>/events")
@operation(
    Operation(
        headers=(_LAST_SEEN,),
        gives={
            200: (Step, "One event for each step, its `id` the step's number; the stream ends with the task."),
            204: (None, "The task has ended, and there is no step after `Last-Event-ID`: no need to ask again."),
        },
        media_types=(MEDIA_TYPE,),
        problems=(kinds.TASK_NOT_FOUND, kinds.TOO_MANY_STREAMS, *kinds.OF_THE_LEDGER),
    )
)
def events(task_id: str) -> Reply | Text:
    """Follow a task: every step so far, and each further one as it is taken.

    Events without a name are steps. Those named `progress` are what the work says of itself meanwhile; they are not
    kept, and bear no id.
    """
    here = parts()
    after = _last_seen()
    first = here.watcher.look(task_id, after=after)
    about_task(task_id)
    if first.is_over and not first.steps:
        return Reply(None, 204)
    here.streams.check_room()
    return Text(_told(here, task_id, after), MEDIA_TYPE, headers={"X-Accel-Buffering": "no"})


def _last_seen() -> int:
    given = request.headers.get(_LAST_SEEN.name, "").strip() or "0"
    if not (given.isascii() and given.isdecimal() and len(given) <= len(str(_MOST)) and int(given) <= _MOST):
        detail = f"must be the number of a step, from 0 (none was seen) to {_MOST}"
        fault = Fault(header=_LAST_SEEN.name, detail=detail)
        raise ApiProblem(kinds.INVALID_INPUT, f"{_LAST_SEEN.name}: {detail}", [fault])
    return int(given)


def _told(here: Parts, task_id: str, after: int) -> Iterator[str]:
    with here.streams.counted():
        yield f"retry: {_COME_BACK_AFTER}\n\n"
        told_at, progress = time.monotonic(), None
        for found in here.watcher.watch(task_id, after=after):
            text = "".join(_step(task_id, step) for step in found.steps)
            if any(step.status == State.RUNNING for step in found.steps):
                progress = None  # what was told is of the run before
            if found.progress not in (None, progress):
                text += _event(json.dumps(found.progress), name="progress")
                progress = found.progress
            if text or time.monotonic() - told_at >= QUIET:
                yield text or ":\n\n"
                told_at = time.monotonic()
            if SERVER_ENDS.is_set():
                return


def _step(task_id: str, step: Any) -> str:
    said = Step.model_validate({"task_id": task_id, **vars(step)})
    return _event(said.model_dump_json(), number=step.number)


def _event(data: str, *, name: str | None = None, number: int | None = None) -> str:
    """One event. ``data``: JSON, which has no line breaks of its own."""
    head = "".join([f"id: {number}\n" if number is not None else "", f"event: {name}\n" if name else ""])
    return f"{head}data: {data}\n\n"
