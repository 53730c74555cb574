"""What goes on after an end, as tasks of their own, so that a crash loses no step.

What they publish is caught, and becomes rows in the commit that settles them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Task as CeleryTask
from celery import states
from celery.app.task import Context
from celery.exceptions import Ignore

from chiffon.agent.child import ledger
from chiffon.agent.headers import as_fields
from chiffon.agent.ledger_backend import OUTAGES
from chiffon.agent.run import Report, Run, current
from chiffon.agent.task import LedgerTask
from chiffon.domain.states import CELERY_STATES, State
from chiffon.domain.verdicts import GivenBack, WorkError
from chiffon.ledger import aftermath
from chiffon.ledger.effects import AFTER_END, RELEASE_CHORD

_LONGEST = 3_600.0
"""Seconds that such a task may run. The user's default limit is for work: this may wait for the ledger meanwhile."""

_AGAIN_AFTER = 1.0
"""Seconds until what could not reach the ledger is run again."""


class ReleaseChord(LedgerTask):
    """Apply a chord's body to the results of its header, or its errbacks to the header's failure."""

    name = RELEASE_CHORD
    ignore_result = False
    max_retries = None
    time_limit = soft_time_limit = _LONGEST

    def run(self, group_id: str, callback: dict[str, Any]) -> None:
        """``callback``: the body, as a signature's dict."""
        with _however_long_it_takes():
            self.backend.release_chord(group_id, self.app.signature(callback))


class AfterEnd(LedgerTask):
    """See to the errbacks, the chain and the chord of a task that ended without a run of its own to do it.

    It was cancelled or expired, its agent died once too often, it took the end of another, or it has an errback that is
    to be called on the spot.
    """

    name = AFTER_END
    ignore_result = False
    max_retries = None
    time_limit = soft_time_limit = _LONGEST

    def run(self, task_id: str) -> None:
        """``task_id``: of the task that ended."""
        with _however_long_it_takes() as run:
            with ledger().transaction() as cursor:
                end = aftermath.read(cursor, task_id, after=self.request.id)
            if end is not None:
                self._see_to(task_id, end)
            if run is not None:
                run.report.side_results[:] = [kept for kept in run.report.side_results if kept.task_id != task_id]

    def _see_to(self, task_id: str, end: aftermath.End) -> None:
        request = Context(
            {
                "id": task_id,
                "task": end.work_type,
                "args": end.arguments,
                "kwargs": end.parameters,
                "root_id": end.canvas.get("root_id") or task_id,
                "parent_id": end.canvas.get("parent_id"),
                "group": end.canvas.get("group"),
                "delivery_info": {"priority": end.priority},
                **as_fields(end.canvas.get("headers") or {}),
                **(end.canvas.get("embed") or {}),
            }
        )
        state = CELERY_STATES[State(end.status)]
        if state == states.SUCCESS:
            self._succeed(request, end.result)
        else:
            error = self.backend.exception_to_python(
                {
                    "exc_type": end.error["type"],
                    "exc_module": end.error["module"],
                    "exc_message": [end.error["message"]],
                }
            )
            traceback = end.error.get("traceback")
            self.backend.mark_as_failure(task_id, error, traceback=traceback, request=request, state=state)

    def _succeed(self, request: Context, result: Any) -> None:
        """What Celery's tracer does when a task returns."""
        going_on = {"parent_id": request.id, "root_id": request.root_id}
        for callback in request.callbacks or ():
            self.app.signature(callback).apply_async((result,), **going_on)
        if request.chain:
            *rest, following = request.chain
            self.app.signature(following).apply_async((result,), chain=rest, **going_on)
        if request.chord:
            self.backend.on_chord_part_return(request, states.SUCCESS, result)


def tasks() -> tuple[CeleryTask, ...]:
    """The tasks to be registered with an agent's application."""
    return ReleaseChord(), AfterEnd()


@contextmanager
def _however_long_it_takes() -> Iterator[Run | None]:
    """From here on, everything that is published follows from this run; and no outage of the ledger fails it.

    It is given back instead, without a limit: the end that it sees to is written down, and will not come again.
    """
    run = current()
    if run is None:
        yield None
        return
    run.ending = True
    try:
        yield run
    except OUTAGES as error:
        run.report = Report(GivenBack(WorkError(type(error).__name__, str(error), "chiffon"), True, _AGAIN_AFTER))
        raise Ignore(str(error)) from error
