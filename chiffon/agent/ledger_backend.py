"""The result backend of the agents' own application: the end of a run is caught, and settled with its task."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

from celery import states
from celery.exceptions import SoftTimeLimitExceeded, TimeLimitExceeded
from kombu.exceptions import EncodeError

from chiffon.agent.backend import PostgresBackend
from chiffon.agent.backend_chords import header_tree
from chiffon.agent.backend_values import encoded
from chiffon.agent.raised import work_error
from chiffon.agent.run import ChordBegun, ChordPart, Run, current, plain
from chiffon.agent.task import ProcessKilled, Unfit, seconds_until
from chiffon.domain.errors import LedgerUnavailable, SchemaBehind
from chiffon.domain.verdicts import Completed, Crashed, DeadLettered, Failed, RetryLater, TimedOut, Verdict
from chiffon.ledger.failures import LostRace
from chiffon.ledger.listener import Listener, listener_at

OUTAGES = (LedgerUnavailable, LostRace, SchemaBehind)
"""What passes, and is nobody's failure: whoever meets it tries again."""


class LedgerBackend(PostgresBackend):
    """As its parent for whoever asks; for the run that the current thread is in, everything goes into its report."""

    outlasted = OUTAGES  # a chord is released by a task, which is run again

    @property
    def listener(self) -> Listener:  # type: ignore[override]
        """LISTEN needs a session of its own, which a transaction pooler does not give."""
        return listener_at(self.app.settings.direct_url)

    def mark_as_done(
        self, task_id: str, result: Any, request: Any = None, store_result: bool = True, state: str = states.SUCCESS
    ) -> None:
        """The run's result; what cannot be kept raises EncodeError, which makes the run a failure.

        Not where nobody asks for it: who ignores the result (``store_result`` is false) may return anything.
        """
        run = _run_of(task_id)
        if run is None:
            super().mark_as_done(task_id, result, request=request, store_result=store_result, state=state)
            return
        is_part = request is not None and request.chord  # its body is given the result, whoever ignores it
        try:
            text = self._result_text(result)
        except EncodeError:
            if store_result or is_part:
                raise
            text = "null"
        run.report.verdict = Completed(text)
        run.report.children = self._children(request)
        if is_part:
            self.on_chord_part_return(request, state, result)

    def _result_text(self, result: Any) -> str:
        """JSON text of a result. Raises EncodeError if there is none, or too much of it."""
        text = encoded(self.prepare_value(result))
        size, limit = len(text), self.app.settings.max_result
        if size > limit:
            raise EncodeError(f"the result has {size} bytes, more than CHIFFON_MAX_RESULT ({limit})")
        return text

    def mark_as_failure(
        self, task_id: str, exc: Any, traceback: Any = None, request: Any = None, **options: Any
    ) -> None:
        """The run's failure; what its errbacks, its chord and the rest of its chain make of it is caught too.

        An errback that Celery calls on the spot is work, and what it does cannot be caught: with one of those, all of
        it is left to `chiffon.after_end`. (Stock Celery calls it before the failure is stored, and for a run that has
        been overtaken too.)
        """
        run = _run_of(task_id)
        if run is not None:
            run.ending = True
            run.report.set_nothing_off()  # by a success that could not be kept
            run.report.verdict = _verdict(exc, traceback)
            if self._calls_errbacks(request):
                run.report.deferred = True
                self.store_result(task_id, exc, states.FAILURE, traceback=traceback, request=request)
                run.ending = False  # what hooks publish from here on is in nobody's report
                return
        super().mark_as_failure(task_id, exc, traceback=traceback, request=request, **options)

    def _calls_errbacks(self, request: Any) -> bool:
        """Whether one of the errbacks takes the request, the error and the traceback: Celery calls that kind."""
        errbacks = [self.app.signature(errback) for errback in getattr(request, "errbacks", None) or ()]
        return any(
            (header := getattr(self.app.tasks.get(errback.task), "__header__", None)) is not None
            and not isinstance(header, partial)
            and self._errback_arity_greater(errback, 1)
            for errback in errbacks
        )

    def mark_as_retry(self, task_id: str, exc: Any, traceback: Any = None, **options: Any) -> Any:
        """The run's wish to be run again; when, only the exception knows that Celery handles meanwhile."""
        run = _run_of(task_id)
        if run is None:
            return super().mark_as_retry(task_id, exc, traceback=traceback, **options)
        when = getattr(sys.exception(), "when", None)
        run.report.verdict = RetryLater(seconds_until(when), work_error(exc, traceback))
        return exc

    def store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **options: Any
    ) -> Any:
        """Store, unless a run is ending: then its own end is in the verdict, and another's is kept beside it."""
        run = current()
        if run is not None and task_id == run.task_id and state == states.STARTED:
            return result  # a task of the user's may want it told, and would fail over an outage
        if run is None or not run.ending:
            return super().store_result(task_id, result, state, traceback=traceback, request=request, **options)
        if task_id == run.task_id:
            run.report.children = self._children(request)
        else:
            told = self.encode_result(result, state)
            run.report.side_results.append(self._stored(task_id, told, state, traceback, request))
        return result

    def _children(self, request: Any) -> str:
        """JSON text of the tasks that a run has called. (What else Celery keeps of it, its row in the ledger says.)"""
        children = self.current_task_children(request)
        return encoded(children) if children else "[]"

    def get_state(self, task_id: str) -> str:
        """As its parent's; but to a run that is ending nobody else has ended.

        Celery asks then so as not to count a part of a chord twice, which the set of a chord's parts never does; and
        an outage would take what is said for the answer along.
        """
        run = current()
        return str(super().get_state(task_id)) if run is None or not run.ending else states.PENDING

    def apply_chord(self, header_result_args: tuple[Any, ...], body: Any, **kwargs: Any) -> None:
        """Make ready for a chord: in the settling commit, if a run is ending."""
        run = current()
        if run is None or not run.ending:
            super().apply_chord(header_result_args, body, **kwargs)
        else:
            run.report.chords.append(ChordBegun(plain(header_result_args[0]), header_tree(*header_result_args)))

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Say how many parts it has: there, too."""
        run = current()
        if run is None or not run.ending:
            super().set_chord_size(group_id, chord_size)
        else:
            run.report.chord_sizes[plain(group_id)] = chord_size

    def on_chord_part_return(self, request: Any, state: str, result: Any, **options: Any) -> None:
        """Count a part of a chord: in the settling commit if a run is ending."""
        run = current()
        if run is None or not run.ending:
            super().on_chord_part_return(request, state, result, **options)
        elif request.group and request.chord:
            run.report.chord_parts.append(_part(request, state))


def _part(request: Any, state: str) -> ChordPart:
    callback = plain(dict(request.chord))
    return ChordPart(plain(request.group), plain(request.id), state, callback, callback.get("chord_size"))


def _verdict(exc: Any, traceback: Any) -> Verdict:
    error = work_error(exc, traceback)
    if isinstance(exc, Unfit):
        return DeadLettered(error)
    if isinstance(exc, ProcessKilled):
        return Crashed(error)
    if isinstance(exc, SoftTimeLimitExceeded | TimeLimitExceeded):
        return TimedOut(error)
    return Failed(error)


def _run_of(task_id: str) -> Run | None:
    run = current()
    return run if run is not None and run.task_id == task_id else None
