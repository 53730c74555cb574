"""Tasks as Celery sees them: every registered one is work, and the ledger decides what becomes of it."""

from __future__ import annotations

import random
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Task as CeleryTask
from celery.canvas import _chord, group
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.exceptions import Retry as CeleryRetry

from chiffon.agent.child import ask_cancelled, report_progress
from chiffon.agent.raised import message_of
from chiffon.agent.run import Run, current
from chiffon.config import Settings
from chiffon.domain.context import WorkContext
from chiffon.domain.errors import InvalidParameters
from chiffon.domain.retry import Fail, Retry
from chiffon.domain.work import WorkType

_TERMINATED = -(256 - signal.SIGTERM)
"""The exit code with which billiard leaves a run when its process is told to end (`billiard.common`)."""


def seconds_until(when: Any) -> float:
    """Seconds from now until a retry's ``when``: seconds, or a moment. Celery's default is three minutes."""
    if isinstance(when, datetime):
        moment = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, float((moment - datetime.now(UTC)).total_seconds()))
    return 180.0 if when is None else max(0.0, float(when))


class Unfit(Exception):
    """The parameters of an accepted task do not fit the work type as this agent knows it."""


class ProcessKilled(Exception):
    """The work asked its process to exit, or ran out of memory: charged as a crash, and the process lives on."""


class LedgerTask(CeleryTask):
    """The base of every task, and before any of the user's: a task's end is caught in the run that it belongs to."""

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Do the work; from its return on, whatever Celery publishes follows from it.

        A task that the work, or a hook of its, calls on the spot is a call like any other: no run of its own ends.
        """
        run = current()
        if run is None or run.entered or self.request.id != run.task_id:
            return super().__call__(*args, **kwargs)
        run.entered = True
        try:
            call = super().__call__  # a base of the user's may have one
            result = (self.run if call.__func__ is CeleryTask.__call__ else call)(*args, **kwargs)
        except (SystemExit, KeyboardInterrupt, MemoryError) as error:
            if isinstance(error, SystemExit) and error.code == _TERMINATED:
                raise  # the pool wants this process gone
            # Celery would end the worker over any of these.
            run.ending = True
            raise ProcessKilled(f"the work raised {type(error).__name__}: {message_of(error)}") from error
        except CeleryRetry:  # no end: what its hooks publish follows from nothing that is settled
            raise
        except Exception:
            run.ending = True
            raise
        except BaseException as error:  # a failure like any other, and Celery would take it for the end of a process
            run.ending = True
            raise RuntimeError(f"the work raised {type(error).__name__}: {message_of(error)}") from error
        run.ending = True
        return result

    def replace(self, sig: Any) -> Any:
        """Put another task in this one's place. A group cannot take it: its end would be nobody's."""
        if isinstance(sig, group | _chord):
            raise Fail("a task cannot be replaced by a group or a chord: call it, and let the last part go on")
        return super().replace(sig)


def with_end_caught(base: type[CeleryTask] | None) -> type[CeleryTask] | None:
    """A base that a user has chosen for tasks, with `LedgerTask` before it; None is left to Celery."""
    if base is None or issubclass(base, LedgerTask):
        return base
    return type(base.__name__, (LedgerTask, base), {"__module__": base.__module__, "__doc__": base.__doc__})


class WorkTask(LedgerTask):
    """The task of a work type: parameters validated, failures retried by its policy."""

    abstract = True
    work_type: WorkType

    def run(self, *arguments: Any, **parameters: Any) -> Any:
        """Run the work. Raises what it raises, and Celery's Retry where the policy has another run to give."""
        run = current()
        if run is None:
            raise RuntimeError(f"{self.name} is run by an agent: dispatch it, or call the function itself")
        try:
            return self.work_type.call(self.work_type.bind(list(arguments), parameters), _context(run))
        except InvalidParameters as error:
            raise Unfit(str(error)) from error
        except (Fail, Ignore, Reject, CeleryRetry):
            raise
        except Retry as asked:
            if asked.after is None or not self._retries_left(run):
                self._retry_or_raise(run, asked)
            raise CeleryRetry(message_of(asked), exc=asked, when=asked.after) from asked
        except SoftTimeLimitExceeded as error:
            if self.work_type.retry_timeouts:
                self._retry_or_raise(run, error)
            raise
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 -- the work may raise anything: asyncio's CancelledError is this
            self._retry_or_raise(run, error)

    def _retries_left(self, run: Run) -> bool:
        limit = self.work_type.retries if run.max_retries is None else run.max_retries
        return run.retries < limit

    def _retry_or_raise(self, run: Run, error: BaseException) -> None:
        if not self._retries_left(run):
            raise error
        wait = self.work_type.policy.wait(run.retries, random.random())  # noqa: S311 -- jitter, no secret
        raise CeleryRetry(message_of(error), exc=error, when=wait) from error


def as_celery_task(work_type: WorkType, settings: Settings) -> WorkTask:
    """The Celery task of a work type."""
    attributes = {
        "name": work_type.name,
        "work_type": work_type,
        "__doc__": work_type.description,
        "__module__": work_type.function.__module__,
        "max_retries": None,
        "time_limit": work_type.timeout or settings.default_timeout,
        "typing": False,
    }
    task: WorkTask = type("WorkTask", (WorkTask,), attributes)()
    return task


def _context(run: Run) -> WorkContext:
    return WorkContext(
        task_id=run.task_id,
        trace_id=run.trace_id,
        request_id=run.request_id,
        attempt=run.attempt,
        deadline=datetime.now(UTC) + timedelta(seconds=run.timeout),
        _report=lambda percent, note: report_progress(run, percent, note),
        _ask_cancelled=lambda: ask_cancelled(run),
    )
