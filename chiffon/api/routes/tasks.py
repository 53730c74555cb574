"""Tasks: where each stands and why, cancelling and replaying."""

from __future__ import annotations

from apiflask import APIBlueprint
from flask import url_for

from chiffon.api import cursors, kinds
from chiffon.api.answers import Task, TaskList, TaskSummary
from chiffon.api.contract import Operation, Reply, operation
from chiffon.api.inputs import TaskQuery
from chiffon.api.parts import parts
from chiffon.api.request_log import about
from chiffon.dispatch.cancel import Cancelling, cancel
from chiffon.dispatch.find import check_task_id, find_task, find_tasks
from chiffon.dispatch.replay import replay
from chiffon.domain.views import TaskFilter

blueprint = APIBlueprint("tasks", __name__, tag={"name": "Tasks", "description": "Where each stands, and why."})

_ONE = Operation(gives={200: (Task, "The task.")}, problems=(kinds.TASK_NOT_FOUND, *kinds.OF_THE_LEDGER))


@blueprint.get("/tasks/<task_id>")
@operation(_ONE)
def show(task_id: str) -> Reply:
    """Show a task with its result and its real runs."""
    return Reply(_task(task_id))


@blueprint.get("/status/<task_id>")
@operation(_ONE)
def status(task_id: str) -> Reply:
    """Show a task: the same as `/tasks/{task_id}`."""
    return Reply(_task(task_id))


@blueprint.get("/tasks")
@operation(
    Operation(
        query=TaskQuery,
        gives={200: (TaskList, "A page of tasks, without results and runs.")},
        problems=kinds.OF_THE_LEDGER,
    )
)
def listing(query: TaskQuery) -> Reply:
    """List tasks, newest first."""
    after = cursors.read(query.cursor) if query.cursor is not None else None
    wanted = TaskFilter(**query.model_dump(exclude={"limit", "cursor"}), after=after)
    page = find_tasks(parts().ledger, wanted, limit=query.limit)
    return Reply(
        TaskList(
            items=[TaskSummary.model_validate(task) for task in page.tasks],
            next_cursor=cursors.written(page.next_after) if page.next_after else None,
        )
    )


@blueprint.post("/tasks/<task_id>/cancel")
@operation(
    Operation(
        gives={
            200: (Task, "It has ended as `cancelled`."),
            202: (Task, "It runs: its agent was asked to stop it."),
        },
        problems=(kinds.TASK_NOT_FOUND, kinds.WRONG_STATE, *kinds.OF_THE_LEDGER),
    )
)
def cancelling(task_id: str) -> Reply:
    """Cancel a task. Repeating it is harmless."""
    check_task_id(task_id)
    found = cancel(parts().ledger, task_id, ttl=parts().settings.idempotency_ttl)
    return Reply(_task(task_id), 200 if found is Cancelling.ENDED else 202)


@blueprint.post("/tasks/<task_id>/replay")
@operation(
    Operation(
        gives={202: (Task, "It is `pending` again, under the same id.")},
        answer_headers={202: {"Location": "The task."}},
        problems=(kinds.TASK_NOT_FOUND, kinds.WRONG_STATE, *kinds.OF_THE_LEDGER),
    )
)
def replaying(task_id: str) -> Reply:
    """Replay a task that has failed, was cancelled, timed out, expired or was dead-lettered."""
    check_task_id(task_id)
    here = parts()
    ring = replay(here.ledger, task_id, lease=here.settings.ring_lease)
    here.ringer.ring([ring])
    return Reply(_task(task_id), 202, {"Location": url_for("tasks.show", task_id=task_id)})


def _task(task_id: str) -> Task:
    found = find_task(parts().ledger, task_id)
    about(task_id=found.task_id, request_id=found.request_id, trace_id=found.trace_id)
    return Task.model_validate(found)
