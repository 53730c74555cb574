"""Place: accept work, have it rung, and say how it stands."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from chiffon.dispatch.ring import Ringer
from chiffon.dispatch.submit import refusal, submit_all
from chiffon.dispatch.wait import Waiter
from chiffon.domain.errors import ChiffonError, LedgerUnavailable, OutcomeUnknown
from chiffon.domain.states import State
from chiffon.domain.tasks import Acceptance, Accepted, Duplicate, NewTask
from chiffon.domain.views import TaskView
from chiffon.ledger import queries
from chiffon.ledger.connect import Ledger


class Placed(NamedTuple):
    """The task that answers a dispatch. ``duplicate``: an earlier dispatch made it; its state is the present one."""

    task_id: str
    request_id: str
    trace_id: str
    work_type: str
    status: str
    priority: int
    duplicate: bool
    result: Any = None
    error: dict[str, Any] | None = None


def place(ledger: Ledger, ringer: Ringer, tasks: Sequence[NewTask], *, lease: float) -> list[Placed | ChiffonError]:
    """Accept tasks in one commit and have them rung.

    Returns:
        For each task, in the order given, the task that answers it, or why it was refused: IdempotencyKeyReused or
        TaskExists.

    Raises:
        LedgerUnavailable: nothing was accepted.
        OutcomeUnknown: something may have been.
    """
    fates, rings = submit_all(ledger, tasks, lease=lease)
    ringer.ring(rings)
    rung = {ring.task_id for ring in rings}
    fresh = [task for task, fate in zip(tasks, fates, strict=True) if isinstance(fate, Accepted)]
    earlier = _look_up(ledger, {fate.task_id for fate in fates if isinstance(fate, Duplicate)}, fresh)
    return [_answer(task, fate, rung, earlier) for task, fate in zip(tasks, fates, strict=True)]


def at_its_end(waiter: Waiter, placed: Placed, *, seconds: float) -> Placed:
    """The task once it has ended, or as it stands after ``seconds``. What is accepted stays so if nobody can look."""
    try:
        view = waiter.wait(placed.task_id, seconds)
    except LedgerUnavailable:
        return placed
    return shown(view, duplicate=placed.duplicate) if view is not None else placed


def shown(view: TaskView, *, duplicate: bool) -> Placed:
    """A task of the ledger as the answer to a dispatch."""
    return Placed(
        task_id=view.task_id,
        request_id=view.request_id,
        trace_id=view.trace_id,
        work_type=view.work_type,
        status=view.status,
        priority=view.priority,
        duplicate=duplicate,
        result=view.result,
        error=view.error,
    )


def _answer(
    task: NewTask, fate: Acceptance, rung: Container[str], earlier: Mapping[str, Placed]
) -> Placed | ChiffonError:
    if isinstance(fate, Accepted):  # as nearly all are, and a pattern takes twice as long to match
        return _newly_placed(task, is_rung=fate.task_id in rung)
    return earlier[fate.task_id] if isinstance(fate, Duplicate) else refusal(fate)


def _newly_placed(task: NewTask, *, is_rung: bool) -> Placed:
    """What was accepted just now is known without another look."""
    waits = (task.delay is not None or task.run_at is not None) and not is_rung
    return Placed(
        task_id=task.task_id,
        request_id=task.request_id,
        trace_id=task.trace_id,
        work_type=task.work_type,
        status=State.SCHEDULED if waits else State.PENDING,
        priority=task.priority,
        duplicate=False,
    )


def _look_up(ledger: Ledger, task_ids: set[str], fresh: Sequence[NewTask]) -> dict[str, Placed]:
    """How the tasks of earlier dispatches stand now; ``fresh`` is what this call has accepted already."""
    if not task_ids:
        return {}
    try:
        with ledger.transaction() as cursor:
            views = queries.several(cursor, sorted(task_ids))
        return {task_id: shown(views[task_id], duplicate=True) for task_id in task_ids}
    except (LedgerUnavailable, KeyError) as error:
        if not fresh:
            raise LedgerUnavailable("the task of an earlier dispatch cannot be read") from error
        raise OutcomeUnknown(
            "Postgres went away after it had accepted: repeat with the same request_id",
            fresh[0].task_id,
            fresh[0].request_id,
        ) from error
