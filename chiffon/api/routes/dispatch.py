"""Dispatch: the door through which work comes in."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from apiflask import APIBlueprint
from flask import request
from werkzeug.urls import iri_to_uri

from chiffon.api import answers, headers, kinds
from chiffon.api.contract import Header, Operation, Reply, operation
from chiffon.api.inputs import Batch, Dispatch
from chiffon.api.parts import parts
from chiffon.api.problems import ApiProblem, Fault
from chiffon.api.reading import fit
from chiffon.api.request_log import about
from chiffon.dispatch.place import Placed, at_its_end, place
from chiffon.dispatch.submit import Order, prepare
from chiffon.domain.errors import ChiffonError, InvalidInput, OutcomeUnknown
from chiffon.domain.states import ENDS
from chiffon.domain.tasks import NewTask

blueprint = APIBlueprint(
    "dispatch", __name__, tag={"name": "Dispatch", "description": "Work comes in; accepted, it is not lost."}
)

_PROBLEMS = (
    kinds.UNKNOWN_WORK_TYPE,
    kinds.INVALID_PARAMETERS,
    kinds.IDEMPOTENCY_KEY_REUSED,
    kinds.TASK_EXISTS,
    *kinds.OF_THE_LEDGER,
    kinds.BUSY,
    kinds.OUTCOME_UNKNOWN,
)
_TRACEPARENT = Header(
    "traceparent", "W3C Trace Context: its trace id is taken where the body has none.", {"type": "string"}
)


@blueprint.post("/dispatch")
@operation(
    Operation(
        body=Dispatch,
        headers=(
            Header(
                headers.IDEMPOTENCY_KEY,
                "The `request_id`, quoted or bare. With another one in the body: 422.",
                {"type": "string"},
            ),
            _TRACEPARENT,
            Header("Prefer", "`wait=N`: wait up to N seconds (60 at most) for the end.", {"type": "string"}),
        ),
        gives={
            202: (answers.Placed, "Accepted: written down, and not lost from here on."),
            200: (answers.Placed, "A duplicate, as its task stands now; or, with `Prefer: wait`, the end."),
        },
        answer_headers={
            202: {"Location": "The task.", "Preference-Applied": "How long was waited."},
            200: {"Idempotent-Replayed": "`true` for a duplicate.", "Preference-Applied": "How long was waited."},
        },
        problems=_PROBLEMS,
    )
)
def dispatch(body: Dispatch) -> Reply:
    """Dispatch work.

    The answer is 202 once the task is committed to the ledger. A second dispatch with the same `request_id` gets the
    same task (200, `duplicate: true`) while the first is in flight and for a while after its end.
    """
    task = prepare(_order(body, request_id=_request_id(body), trace_id=headers.trace_id()))
    about(task_id=task.task_id, request_id=task.request_id, trace_id=task.trace_id)
    here = parts()
    placed = place(here.ledger, here.ringer, [task], lease=here.settings.ring_lease)[0]
    if isinstance(placed, ChiffonError):
        raise placed
    if placed.duplicate:
        about(task_id=placed.task_id, request_id=placed.request_id, trace_id=placed.trace_id)
    wait = headers.wait_seconds()
    if wait is not None and placed.status not in ENDS:
        placed = at_its_end(here.waiter, placed, seconds=wait)
    return _answer(placed, wait)


@blueprint.post("/dispatch/batch")
@operation(
    Operation(
        body=Batch,
        headers=(_TRACEPARENT,),
        gives={202: (answers.BatchAnswer, "What became of each task, in the order sent.")},
        problems=_PROBLEMS,
    )
)
def batch(body: Batch) -> Reply:
    """Dispatch up to 1,000 tasks by one commit.

    Each item has the `code` and the members that `/dispatch` would have answered. What does not fit is refused by
    itself; 422 if nothing is left.
    """
    if request.headers.get(headers.IDEMPOTENCY_KEY) is not None:
        headers.refuse("names one dispatch: give each task of a batch its request_id")
    trace_id = headers.trace_id()
    fates = [_prepared(item, index, trace_id) for index, item in enumerate(body.tasks)]
    tasks = [fate for fate in fates if isinstance(fate, NewTask)]
    placed = iter(_place_all(tasks))
    items = [_item(next(placed) if isinstance(fate, NewTask) else fate, i) for i, fate in enumerate(fates)]
    if not any(isinstance(item, answers.PlacedItem) for item in items):
        raise _nothing_valid(items)
    return Reply(answers.BatchAnswer(items=items), 202)


def _order(body: Dispatch, *, request_id: str | None, trace_id: str | None) -> Order:
    return Order(**(vars(body) | {"request_id": request_id, "trace_id": body.trace_id or trace_id}))


def _request_id(body: Dispatch) -> str | None:
    key = headers.idempotency_key()
    if key is not None and body.request_id not in (None, key):
        headers.refuse("is another one than request_id in the body: send one of them, or the same")
    return key or body.request_id


def _answer(placed: Placed, wait: int | None) -> Reply:
    said = {} if wait is None else {"Preference-Applied": f"wait={wait}"}
    answer = answers.Placed.model_validate(placed)
    if placed.duplicate:
        return Reply(answer, 200, {"Idempotent-Replayed": "true", **said})
    if wait is not None and placed.status in ENDS:
        return Reply(answer, 200, said)
    # As `url_for` has it, which takes as long as the rest of the answer: its task id is a UUID.
    return Reply(answer, 202, {"Location": f"{_as_uri(request.script_root)}/tasks/{placed.task_id}", **said})


_as_uri = lru_cache(maxsize=64)(iri_to_uri)


def _prepared(item: Any, index: int, trace_id: str | None) -> NewTask | ApiProblem:
    here = f"/tasks/{index}"
    try:
        asked = fit(Dispatch, item, prefix=here)
        return prepare(_order(asked, request_id=asked.request_id, trace_id=trace_id))
    except InvalidInput as error:
        return ApiProblem.of(error, prefix=here)
    except ApiProblem as problem:
        return problem


def _place_all(tasks: list[NewTask]) -> list[Placed | ChiffonError]:
    if not tasks:
        return []
    here = parts()
    try:
        return place(here.ledger, here.ringer, tasks, lease=here.settings.ring_lease)
    except OutcomeUnknown as error:  # ids that we made up are worth nothing to a caller who does not know them
        ids = [{"task_id": task.task_id, "request_id": task.request_id} for task in tasks]
        raise ApiProblem.of(error, extensions={"items": ids}) from error


def _item(fate: Placed | ChiffonError | ApiProblem, index: int) -> answers.PlacedItem | answers.RefusedItem:
    if isinstance(fate, Placed):
        return answers.PlacedItem(**fate._asdict(), code=200 if fate.duplicate else 202)
    problem = fate if isinstance(fate, ApiProblem) else ApiProblem.of(fate, prefix=f"/tasks/{index}")
    return answers.RefusedItem(code=problem.kind.status, problem=problem.problem())


def _nothing_valid(items: list[answers.PlacedItem | answers.RefusedItem]) -> ApiProblem:
    refused = [item for item in items if isinstance(item, answers.RefusedItem)]
    faults = [
        fault
        for index, item in enumerate(refused)
        for fault in item.problem.errors or [Fault(pointer=f"/tasks/{index}", detail=item.problem.detail)]
    ]
    shown = [item.model_dump(mode="json") for item in refused]
    return ApiProblem(kinds.INVALID_INPUT, "none of the tasks can be accepted", faults, extensions={"items": shown})
