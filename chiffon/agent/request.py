"""A claimed task on its way through Celery's pool: every end of it leads to one settlement."""

from __future__ import annotations

import logging
import os
import signal
import weakref
from collections.abc import Callable
from functools import partial
from time import monotonic, time
from typing import Any, Protocol

import structlog
from billiard.einfo import ExceptionWithTraceback
from celery.app.task import Context
from celery.exceptions import TaskRevokedError, TimeLimitExceeded, WorkerLostError
from celery.worker import state
from celery.worker.request import Request

from chiffon.agent import events, judging
from chiffon.agent.clerk import Clerk
from chiffon.agent.commands import Finished, Paid, Started
from chiffon.agent.delivery import Delivery
from chiffon.agent.headers import protocol2_headers
from chiffon.agent.killing import kill
from chiffon.agent.ledger_backend import work_error
from chiffon.agent.reading import Reader
from chiffon.agent.run import Report, Run, running
from chiffon.agent.trace import do_work
from chiffon.domain.tasks import Claim
from chiffon.domain.verdicts import (
    Cancelled,
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
from chiffon.ledger.settle import Fenced, Recorded

log = structlog.get_logger(__name__)


class Together(Protocol):
    """What goes to a process of the pool with others."""

    def recall(self) -> None:
        """Have those that have not begun come back."""


class ClaimedRequest(Request):
    """Celery's request for a row of the ledger; the message that rang for it is acknowledged when it is settled."""

    def __init__(
        self,
        claim: Claim,
        delivery: Delivery,
        *,
        clerk: Clerk,
        reader: Reader,
        task: Any,
        timeout: float,
        work_type: WorkType | None,
        shown: tuple[str, str],
        **options: Any,
    ) -> None:
        self.claim = claim
        self._clerk = clerk
        self._reader = reader
        self._timeout = timeout
        self._work_type = work_type
        self._delivery = delivery
        self._surrendered = False
        self.claimed_at = monotonic()
        self.time_start: float | None = None
        self.hand_over: Together | None = None
        """With which others it goes, while it does."""
        self.alone = bool(claim.crashes)
        """Whether it must not go with others: it, or one beside it, took its process along."""
        self.place: int | None = None
        """Its place in the line before the pool, once it has one."""
        self.unwanted = False
        """Whether it is to be stopped as soon as that costs no other its process."""
        self._finished = False
        self._already_revoked = False
        self._shown_result: str | None = None
        self._runtime: float | None = None
        self._accepted_at: float | None = None
        self.on_settled: Callable[[], Any] = lambda: None
        embed = claim.canvas.get("embed") or {}
        body = (claim.arguments, claim.parameters, embed)
        super().__init__(
            delivery.message,
            on_ack=delivery.acknowledge,
            on_reject=delivery.dead_letter,
            task=task,
            body=body,
            headers=protocol2_headers(claim, shown, (timeout, claim.soft_timeout)),
            decoded=True,
            **options,
        )

    @property
    def log(self) -> Any:
        """A logger that names the task, its caller's request and the trace."""
        return log.bind(task_id=self.id, request_id=self.claim.request_id, trace_id=self.claim.trace_id)

    @property
    def share(self) -> float:
        """The part of a slot that it counts for."""
        return self._delivery.share

    @property
    def finished(self) -> bool:
        """Whether its end is known, or it was given back."""
        return self._finished

    @property
    def soft_limit(self) -> float | None:
        """The soft time limit, in seconds."""
        soft = self.claim.soft_timeout or self.task.soft_time_limit
        return soft if soft and soft < self._timeout else None  # billiard starts the hard one after it

    @property
    def runtime(self) -> float | None:
        """Seconds that the run took, once it has said so."""
        return self._runtime

    def running_for(self) -> float:
        """Seconds for which it has run."""
        return seconds_since(self._accepted_at) or 0.0

    def job(self) -> tuple[Any, ...]:
        """What a process has to know of it: the arguments of `do_work`."""
        return self._type, self.id, self._request_dict, self._body, self._facts()

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Hand the work to the pool, unless it was ended or given back while it waited for its turn."""
        if self._finished:
            raise TaskRevokedError(self.id)
        result = pool.apply_async(
            do_work,
            args=self.job(),
            accept_callback=self.on_accepted,
            timeout_callback=self.on_timeout,
            callback=self.on_success,
            error_callback=self.on_failure,
            soft_timeout=self.soft_limit,
            timeout=self._timeout,
            correlation_id=self.id,
        )
        self._apply_result = _reference(result)
        return result

    def _facts(self) -> dict[str, Any]:
        claim = self.claim
        return {
            "execution": claim.execution,
            "trace_id": claim.trace_id,
            "request_id": claim.request_id,
            "attempt": claim.attempts,
            "retries": claim.retries,
            "max_retries": claim.max_retries,
            "timeout": self._timeout,
        }

    # What the pool says

    def on_accepted(self, pid: int | None, time_accepted: float) -> None:
        """A process, or a thread of this one, has taken the work.

        Raises TaskRevokedError in a thread, which then does not begin, if it was ended or given back meanwhile.
        """
        if self._finished and pid == os.getpid():
            raise TaskRevokedError(self.id)
        self.begin(pid, time_accepted)
        if self._finished and not self.in_thread and self.hand_over is None:  # it was given back a moment ago
            if pid is not None:
                kill(pid)
            return
        self._clerk.tell(Started(self.id, self.claim.execution, monotonic()))

    def begin(self, pid: int | None, at: float) -> None:
        """Note that it has begun, at that monotonic time. For one that has ended since that is all: its end says so."""
        super().on_accepted(pid, at)
        self._accepted_at = at

    def on_success(self, report: Report, **_: Any) -> None:
        """The run is over, and says how it was."""
        self._runtime = report.runtime
        self._shown_result = report.shown
        self._finish(report.verdict or Failed(WorkError("InternalError", "the run said nothing", "chiffon")), report)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A limit was reached; the hard one has ended the process."""
        if soft:
            self.log.warning("soft_time_limit", seconds=timeout)
        else:
            self._time_out(TimeLimitExceeded(timeout))

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The pool could not bring the run to its end."""
        exc = exc_info.exception
        if isinstance(exc, ExceptionWithTraceback):
            exc = exc.exc
        if isinstance(exc, TimeLimitExceeded):
            self._time_out(exc)
        elif self._already_revoked or self._already_cancelled or type(exc).__name__ == "Terminated":
            self.end_as_stopped()
        elif isinstance(exc, WorkerLostError | SystemExit | KeyboardInterrupt | MemoryError):
            self._finish(Crashed(WorkError("WorkerLostError", f"the process that ran it died: {exc}", "billiard")))
        else:
            self._finish(Failed(work_error(exc, exc_info.traceback)))

    def _time_out(self, exc: Exception) -> None:
        """End as timed out; errbacks and chords hear of it as of any failure."""
        if self._finished:
            return
        self.log.warning("time_limit", seconds=self._timeout)
        if (wait := judging.wait_after_timeout(self.claim, self._work_type)) is not None:
            if self.worker_pid and not self.in_thread:
                kill(self.worker_pid)  # the next run must not find this one at work
            self._finish(RetryLater(wait, work_error(exc)))
            return
        run = Run(task_id=self.id, **self._facts(), ending=True)
        report: Report | None = run.report
        try:
            with running(run):
                context = Context(self._request_dict, **(self._body[2] or {}))
                self.task.backend.mark_as_failure(self.id, exc, request=context)
        except Exception:  # what follows from the end is left to a task of its own
            self.log.exception("aftermath_not_caught")
            report = None
        self._finish(TimedOut(work_error(exc)), report)

    # What others want of it

    def acknowledge(self) -> None:
        """Acknowledge the message; the ledger owns the work."""
        self._delivery.acknowledge()

    @property
    def in_thread(self) -> bool:
        """Whether the work runs in a thread of this very process, which nobody can stop."""
        return bool(self.worker_pid == os.getpid())

    @property
    def limit(self) -> float:
        """The hard time limit, in seconds."""
        return self._timeout

    def over_limit(self) -> bool:
        """Whether it has run for longer than it may."""
        return self.running_for() > self._timeout

    def time_out(self) -> None:
        """End as timed out, whatever the work does."""
        self._time_out(TimeLimitExceeded(self._timeout))

    def end_as_stopped(self) -> None:
        """End as cancelled, whatever the work does."""
        self._finish(Cancelled(WorkError("TaskRevokedError", "stopped", "celery.exceptions")))

    def stop(self, pool: Any) -> None:
        """Stop the run: its grace is over, or it is somebody else's."""
        if self._finished:
            return
        if self.hand_over is not None and not self.unwanted:
            self.unwanted = True
            self.hand_over.recall()
            return
        self._already_cancelled = True
        if self.time_start is None or not self.worker_pid:
            self.give_back("cancelled before it began")
            return
        self.log.info("stopping")
        pool.terminate_job(self.worker_pid, signal.SIGKILL)  # so that the pool expects it, and makes another
        kill(self.worker_pid)
        self.end_as_stopped()

    def revoked(self) -> bool:
        """Celery's own revoke, for who uses that."""
        if self._already_revoked:
            return True
        if self.id not in state.revoked:
            return False
        self._already_revoked = True
        self._finish(Cancelled(WorkError("TaskRevokedError", "revoked", "celery.exceptions")))
        return True

    def surrender(self) -> None:
        """From here on only `give_back` counts: the process is about to be killed."""
        self._surrendered = True

    def resume(self, report: Report) -> None:
        """It had ended before its process was killed."""
        self._surrendered = False
        self.on_success(report)

    def note_begun(self) -> None:
        """It had begun when its process was killed."""
        if self.time_start is None:
            self.time_start = time()

    def give_back(self, why: str, after: float = 0.0) -> None:
        """Let another agent have it, uncounted."""
        self._surrendered = False
        error = WorkError("GivenBack", why, "chiffon")
        self._finish(GivenBack(error, started=self.time_start is not None, after=after))

    def spoil(self, error: Exception) -> None:
        """It could not even be handed to the pool."""
        self.log.error("claim_not_run", reason=repr(error))
        self._finish(DeadLettered(WorkError("Unrunnable", f"the agent could not run it: {error!r}"[:1000], "chiffon")))

    def condemn(self, why: str) -> None:
        """Nobody can run it."""
        self._finish(DeadLettered(WorkError("UnknownWorkType", why, "chiffon")))

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Celery has sent the signal; the process's end will settle it."""
        self._already_revoked = True
        self.send_event("task-revoked", terminated=terminated, signum=signum, expired=expired)

    # Settling

    def _finish(self, verdict: Verdict, report: Report | None = None) -> None:
        if self._finished or self._surrendered:
            return
        self._finished = True
        settlement, told = judging.ending(
            self.claim,
            verdict,
            report,
            reader=self._reader,
            ran_for=seconds_since(self._accepted_at) if self._runtime is None else self._runtime,
            dead_letter=self._work_type is None or self._work_type.dead_letter,
            unknown_after=self.app.settings.unknown_after,
        )
        reply = partial(self._settled, settlement.verdict)
        self._clerk.tell(Finished(settlement, told, self.claim.trace_id, reply, self.claim.request_id))

    def _settled(self, verdict: Verdict, answer: Recorded | Fenced) -> None:
        """The ledger has it: the message has done its duty."""
        self.on_settled()
        task_ready(self, successful=isinstance(verdict, Completed))
        if isinstance(answer, Fenced):
            self.log.warning("fenced_off", execution=self.claim.execution)
        if isinstance(answer, Recorded) and answer.owes_dead_letter:
            self._delivery.dead_letter()
            at, hearing = monotonic(), self._delivery.hearing
            self._clerk.tell(Paid(self.id, at, self._delivery.connected, lambda: hearing.since(at)))
        else:
            self._delivery.acknowledge()
        status = answer.status if isinstance(answer, Recorded) else "fenced"
        if logging.getLogger(__name__).isEnabledFor(logging.INFO):  # to name the task costs more than to ask
            self.log.info("task_settled", work_type=self.name, status=status, execution=self.claim.execution)
        events.tell_ended(self, verdict, shown=self._shown_result, runtime=self._runtime)


def task_ready(request: ClaimedRequest, *, successful: bool) -> None:
    """Tell Celery's own books."""
    state.task_ready(request, successful=successful)


def seconds_since(accepted_at: float | None) -> float | None:
    """Seconds since a moment of the monotonic clock; None if there was none."""
    return None if accepted_at is None else max(0.0, monotonic() - accepted_at)


def _reference(result: Any) -> Any:
    return weakref.ref(result) if result is not None else None
