"""What becomes of a run, where more than the run itself is to be asked: its claim, its work type, the time."""

from __future__ import annotations

import random
from typing import Any

from celery.exceptions import WorkerLostError

from chiffon.agent.raised import message_of, work_error
from chiffon.agent.reading import Reader
from chiffon.agent.run import Report
from chiffon.agent.task import Unfit
from chiffon.domain.tasks import Claim
from chiffon.domain.values import canonical
from chiffon.domain.verdicts import (
    Completed,
    Crashed,
    DeadLettered,
    Failed,
    GivenBack,
    RetryLater,
    TimedOut,
    Verdict,
    WorkError,
)
from chiffon.domain.work import WorkType
from chiffon.ledger.effects import AFTER_END, RELEASE_CHORD
from chiffon.ledger.settle import Settlement

SILENT = Failed(WorkError("InternalError", "the run said nothing", "chiffon"))
"""What becomes of a run that is over and says nothing."""


def broken_off(exc: BaseException, traceback: Any) -> Verdict:
    """What becomes of a run that the pool could not bring to its end."""
    if isinstance(exc, WorkerLostError | SystemExit | KeyboardInterrupt | MemoryError):
        return Crashed(WorkError("WorkerLostError", f"the process that ran it died: {message_of(exc)}", "billiard"))
    return Failed(work_error(exc, traceback))


def unrunnable(error: Exception) -> Verdict:
    """What becomes of a claim that could not even be handed to the pool."""
    return DeadLettered(WorkError("Unrunnable", f"the agent could not run it: {error!r}"[:1000], "chiffon"))


def ending(
    claim: Claim,
    verdict: Verdict,
    report: Report | None,
    *,
    reader: Reader,
    ran_for: float | None,
    dead_letter: bool,
    unknown_after: float,
) -> tuple[Settlement, Report]:
    """What is to be written down of a run that came to this verdict, and the report of what that sets off.

    Args:
        claim: whose run it was.
        verdict: what the pool, or whoever stopped it, says.
        report: what the run itself has said; None if it could not.
        reader: reads what the run wants to be run next.
        ran_for: seconds; None if it did not begin.
        dead_letter: whether a message that dies of this goes to `dlx_queue`.
        unknown_after: seconds until it is over for work that no agent can run.
    """
    verdict = reconsidered(verdict, claim, unknown_after=unknown_after)
    try:
        anew = run_next(claim, report, reader)
    except Exception as error:  # noqa: BLE001 -- a retry or a replacement that nobody could run
        verdict, report, anew = Failed(work_error(error)), None, None
    settlement = Settlement(
        task_id=claim.task_id,
        execution=claim.execution,
        verdict=verdict,
        ran_for=ran_for,
        children=report.children if report else None,
        anew=anew,
        caught=report is not None and isinstance(verdict, Completed | Failed | TimedOut | DeadLettered),
        dead_letter=dead_letter,
    )
    return settlement, report or Report(verdict)


def after_timeout(claim: Claim, work_type: WorkType | None, error: WorkError) -> RetryLater | GivenBack | None:
    """What has run over its limit is run again, if its work type says so of timeouts; None: it has ended.

    What sees to the end of another task is given back: that end will not come again, and nobody else would see to it.
    """
    if claim.work_type in {AFTER_END, RELEASE_CHORD}:
        return GivenBack(error, started=True, after=backoff(claim.give_backs))
    if work_type is None or not work_type.retry_timeouts:
        return None
    limit = work_type.retries if claim.max_retries is None else claim.max_retries
    if claim.retries >= limit:
        return None
    wait = work_type.policy.wait(claim.retries, random.random())  # noqa: S311 -- jitter, no secret
    return RetryLater(wait, error)


def reconsidered(verdict: Verdict, claim: Claim, *, unknown_after: float) -> Verdict:
    """The verdict, or another chance: parameters that the API accepted may fit a newer agent.

    In a rolling deployment it is not over yet. ``unknown_after``: seconds until it is.
    """
    refused_for = sum(backoff(number) for number in range(claim.give_backs))
    may_fit = claim.origin == "http" and refused_for < unknown_after
    match verdict:
        case DeadLettered(error) if may_fit and error.type == Unfit.__name__:
            return GivenBack(error, started=False, after=backoff(claim.give_backs))
    return verdict


def run_next(claim: Claim, report: Report | None, reader: Reader) -> str | None:
    """What a retry or a replacement runs, as `Settlement.anew` has it; None: the same again.

    Raises InvalidInput if nobody could run it.
    """
    if report is None or report.anew is None:
        return None
    draft = report.anew
    same = (draft.headers["task"], draft.arguments, draft.parameters)
    if same == (claim.work_type, claim.arguments, claim.parameters):
        return None
    task = reader.from_draft(draft, trace_id=claim.trace_id, parent=claim.task_id)
    names = ("work_type", "arguments", "parameters", "canvas", "queue")
    return canonical({name: getattr(task, name) for name in names})


def backoff(give_backs: int) -> float:
    """Seconds until a task that this agent cannot run is rung again: for another agent."""
    return float(min(5.0, 0.5 * 2.0 ** min(give_backs, 10)))
