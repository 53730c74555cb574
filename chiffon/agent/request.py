"""A claimed task on its way through Celery's pool: every end of it leads to one settlement."""

from __future__ import annotations

import os
import signal
import weakref
from time import monotonic, time
from typing import Any

import structlog
from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.app.task import Context
from celery.exceptions import TaskRevokedError, TimeLimitExceeded
from celery.worker import state
from celery.worker.request import Request

from chiffon.agent import judging
from chiffon.agent.clerk import Clerk
from chiffon.agent.commands import Started
from chiffon.agent.delivery import Delivery
from chiffon.agent.headers import as_fields, protocol2_headers
from chiffon.agent.killing import kill
from chiffon.agent.outcome import Outcome
from chiffon.agent.raised import work_error
from chiffon.agent.reading import Reader
from chiffon.agent.run import Report, Run, running
from chiffon.agent.together import Together
from chiffon.agent.trace import do_work
from chiffon.domain.tasks import Claim
from chiffon.domain.verdicts import Cancelled, DeadLettered, GivenBack, TimedOut, WorkError
from chiffon.domain.work import WorkType

log = structlog.get_logger(__name__)


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
        self.outcome = Outcome(claim, delivery, clerk=clerk, reader=reader, work_type=work_type)
        self._clerk = clerk
        self._timeout = timeout
        self._work_type = work_type
        self._delivery = delivery
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
        self._already_revoked = False
        super().__init__(
            delivery.message,
            on_ack=delivery.acknowledge,
            on_reject=delivery.dead_letter,
            task=task,
            body=(claim.arguments, claim.parameters, claim.canvas.get("embed") or {}),
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
    def soft_limit(self) -> float | None:
        """The soft time limit, in seconds."""
        soft = self.claim.soft_timeout or self.task.soft_time_limit
        return soft if soft and soft < self._timeout else None  # billiard starts the hard one after it

    def job(self) -> tuple[Any, ...]:
        """What a process has to know of it: the arguments of `do_work`."""
        return self._type, self.id, self._request_dict, self._body, self._facts()

    def execute_using_pool(self, pool: Any, **_: Any) -> Any:
        """Hand the work to the pool, unless it was ended, given back or revoked while it waited for its turn."""
        if self.outcome.is_known or self.revoked():
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
        self._apply_result = weakref.ref(result) if result is not None else None
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
            "incarnation": self._clerk.life.incarnation,
        }

    # What the pool says

    def on_accepted(self, pid: int | None, time_accepted: float) -> None:
        """A process, or a thread of this one, has taken the work.

        Raises TaskRevokedError in a thread, which then does not begin, if it was ended or given back meanwhile.
        """
        if self.outcome.is_known and pid == os.getpid():
            raise TaskRevokedError(self.id)
        self.begin(pid, time_accepted)
        if self.outcome.is_known and not self.in_thread and self.hand_over is None:  # it was given back a moment ago
            if pid is not None:
                kill(pid)
            return
        self._clerk.tell(Started(self.id, self.claim.execution, monotonic()))

    def begin(self, pid: int | None, at: float) -> None:
        """Note that it has begun, at that monotonic time. For one that has ended since that is all: its end says so."""
        super().on_accepted(pid, at)
        self.outcome.begun_at = at

    def on_success(self, report: Report | ExceptionInfo, **_: Any) -> None:
        """The run is over, and says how it was; or its thread ended by what is no exception to Python."""
        if isinstance(report, ExceptionInfo):
            self.on_failure(report)
        else:
            self.outcome.told(self, report)

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
        else:
            self.outcome.reach(self, judging.broken_off(exc, exc_info.traceback))

    def _time_out(self, exc: Exception) -> None:
        """End as timed out; errbacks and chords hear of it as of any failure."""
        if self.outcome.is_known:
            return
        self.log.warning("time_limit", seconds=self._timeout)
        if (again := judging.after_timeout(self.claim, self._work_type, work_error(exc))) is not None:
            if self.worker_pid and not self.in_thread:
                kill(self.worker_pid)  # the next run must not find this one at work
            self.outcome.reach(self, again)
            return
        run = Run(task_id=self.id, **self._facts(), ending=True)
        report: Report | None = run.report
        try:
            with running(run):
                context = Context(as_fields(self._request_dict), **(self._body[2] or {}))
                self.task.backend.mark_as_failure(self.id, exc, request=context)
        except Exception:  # what follows from the end is left to a task of its own
            self.log.exception("aftermath_not_caught")
            report = None
        self.outcome.reach(self, TimedOut(work_error(exc)), report)

    # What others want of it

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What `celery inspect` and Flower show of it: without secrets, whatever they ask for."""
        shown: dict[str, Any] = super().info(safe=True)
        return shown

    def acknowledge(self) -> None:
        """Celery's word at the start of a task with ``acks_late=False``. A message is kept until it is settled."""

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
        return self.outcome.running_for() > self._timeout

    def time_out(self) -> None:
        """End as timed out, whatever the work does."""
        self._time_out(TimeLimitExceeded(self._timeout))

    def end_as_stopped(self) -> None:
        """End as cancelled, whatever the work does."""
        self.outcome.reach(self, Cancelled(WorkError("TaskRevokedError", "stopped", "celery.exceptions")))

    def stop(self, pool: Any) -> None:
        """Stop the run: its grace is over, or it is somebody else's."""
        if self.outcome.is_known:
            return
        if self.hand_over is not None and not self.unwanted:
            self.unwanted = True
            self.hand_over.recall()
            return
        if self.hand_over is not None and not self.hand_over.catch_up(self):
            return
        self._already_cancelled = True
        if self.time_start is None or not self.worker_pid:
            self.give_back("cancelled before it began")
            return
        self.log.info("stopping")
        pool.terminate_job(self.worker_pid, signal.SIGKILL)  # so that the pool expects it, and makes another
        kill(self.worker_pid)
        self.end_as_stopped()

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Celery's own revoke of what may run; left to itself, that ends others that its process runs."""
        if self.hand_over is not None:
            self.unwanted = True
            self.hand_over.recall()
        elif self.time_start is None:
            self.end_as_stopped()
        elif not self.outcome.is_known:
            super().terminate(pool, signal)

    def revoked(self) -> bool:
        """Celery's own revoke, for whoever uses that."""
        if self._already_revoked:
            return True
        if self.id not in state.revoked:
            return False
        self._already_revoked = True
        self.outcome.reach(self, Cancelled(WorkError("TaskRevokedError", "revoked", "celery.exceptions")))
        return True

    def surrender(self) -> None:
        """From here on only what its run has said counts, and `give_back`: the process is about to be killed."""
        self.outcome.is_withheld = True

    def note_begun(self) -> None:
        """It had begun when its process was killed."""
        if self.time_start is None:
            self.time_start = time()

    def give_back(self, why: str, after: float = 0.0) -> None:
        """Let another agent have it, uncounted."""
        self.outcome.is_withheld = False
        error = WorkError("GivenBack", why, "chiffon")
        self.outcome.reach(self, GivenBack(error, started=self.time_start is not None, after=after))

    def spoil(self, error: Exception) -> None:
        """It could not even be handed to the pool."""
        self.log.error("claim_not_run", reason=repr(error))
        self.outcome.reach(self, judging.unrunnable(error))

    def condemn(self, why: str) -> None:
        """Nobody can run it."""
        self.outcome.reach(self, DeadLettered(WorkError("UnknownWorkType", why, "chiffon")))

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Celery has sent the signal; the process's end will settle it."""
        self._already_revoked = True
        self.send_event("task-revoked", terminated=terminated, signum=signum, expired=expired)
