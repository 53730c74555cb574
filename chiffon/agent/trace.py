"""What the pool runs: Celery's own tracing of a task, and a report in place of its effects."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from datetime import datetime
from functools import cache
from traceback import format_exception
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import current_app, states
from celery.app.trace import TraceInfo, trace_task

from chiffon.agent import judging
from chiffon.agent.headers import CELERYS, TAKEN
from chiffon.agent.raised import message_of, work_error
from chiffon.agent.run import Draft, Report, Run, running
from chiffon.agent.slate import slates
from chiffon.agent.task import seconds_until
from chiffon.config import settings
from chiffon.domain.verdicts import Completed, DeadLettered, GivenBack, Replaced, RetryLater, Verdict, WorkError
from chiffon.logs import about, redacted_text


def do_work(
    name: str, task_id: str, request: dict[str, Any], body: tuple[Any, Any, Any], facts: dict[str, Any]
) -> Report:
    """Run a claimed task.

    Args:
        name: of the Celery task.
        task_id: the task's.
        request: the headers of protocol 2, and what Celery adds.
        body: arguments, parameters, embedded.
        facts: the fields of `Run` that the agent and the claim know.

    Returns:
        What the main process is to write down.
    """
    arguments, parameters, embed = body
    own = {header: request[header] for header in request.keys() - CELERYS}
    for header in own.keys() & TAKEN:
        del request[header]
    request.update(args=arguments, kwargs=parameters, headers=own, hostname=_hostname(), is_eager=False, **embed)
    run = Run(task_id=task_id, **facts)
    began = time.monotonic()
    with running(run), about(task_id=task_id, request_id=run.request_id, trace_id=run.trace_id):
        task = current_app.tasks[name]
        try:
            said, info, _, shown = trace_task(task, task_id, arguments, parameters, request, app=current_app)
        except Exception as error:  # noqa: BLE001 -- thrown by a hook; and a thread that raises is never heard of
            said, info, shown = ExceptionInfo(internal=True), TraceInfo(states.FAILURE, error), None
    report = run.report
    report.runtime = time.monotonic() - began
    report.shown = redacted_text(shown, settings()) if shown else None
    told_nobody = _is_broken_off(said, info)
    if report.verdict is None:
        report.verdict = _unsaid(info, run)
        told_nobody = isinstance(report.verdict, DeadLettered)
    elif isinstance(report.verdict, Completed) and report.anew is not None:
        report.verdict = _asked_on_the_way(report.anew)
    if told_nobody:
        report.set_nothing_off()
        report.deferred = True
    return report


def do_several(number: int, jobs: Sequence[tuple[Any, ...]]) -> tuple[int, Report | None]:
    """Run a hand-over.

    Args:
        number: the slate's, on which it is noted how far it is.
        jobs: the arguments of `do_work`, for each.

    Returns:
        The place at which it ended, and the report of the task there if that did not fit on the slate.
    """
    slate = slates()[number]
    for place, job in enumerate(jobs):
        if not slate.begin(place):
            return place, None
        report = do_work(*job)
        if not slate.end(place, report):
            return place, report
    return len(jobs), None


@cache
def _hostname() -> str:
    return socket.gethostname()


def _is_broken_off(said: Any, info: Any) -> bool:
    """Whether Celery's tracing itself ended by an error: out of memory, a hook's, or over what cannot be kept.

    Then it may not have told all whom the run's end concerns.
    """
    return info is not None and info.state == states.FAILURE and getattr(said, "internal", False)


def _asked_on_the_way(anew: Draft) -> RetryLater:
    """What becomes of a run that returned after all, having asked for another (``self.retry(throw=False)``)."""
    eta = anew.headers.get("eta")
    wait = seconds_until(datetime.fromisoformat(eta)) if eta else 0.0
    return RetryLater(wait, WorkError("Retry", "the work asked for another run", "celery.exceptions"))


def _unsaid(info: Any, run: Run) -> Verdict:
    """The verdict on a run that stored nothing: it raised Ignore or Reject, or Celery itself failed.

    Or it wants to be run again, and ignores its results: Celery stores no retry then.
    """
    if info is not None and info.state == states.RETRY:
        trace = "".join(format_exception(info.retval))
        return RetryLater(seconds_until(info.retval.when), work_error(info.retval.exc or info.retval, trace))
    if info is not None and info.state == states.IGNORED and run.report.anew is not None:
        return Replaced()
    if info is not None and info.state == states.IGNORED:
        return Completed("null")
    if info is not None and info.state == states.REJECTED:
        error = WorkError("Reject", f"the work rejected its message: {message_of(info.retval)}", "celery.exceptions")
        return GivenBack(error, started=True, after=1.0) if info.retval.requeue else DeadLettered(error)
    if info is not None and isinstance(info.retval, MemoryError):
        return judging.broken_off(info.retval, None)
    return DeadLettered(
        WorkError("InternalError", "Celery could not run the task; the agent's log says why", "chiffon")
    )
