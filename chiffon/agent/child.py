"""What a run may ask of the ledger while it works: progress, and whether it was cancelled."""

from __future__ import annotations

import functools
import threading
import time

import structlog

from chiffon.agent.run import Run
from chiffon.config import settings
from chiffon.domain.errors import ChiffonError
from chiffon.domain.values import canonical, check_value
from chiffon.ledger import claims, control
from chiffon.ledger.connect import Ledger

log = structlog.get_logger(__name__)

PROGRESS_EVERY = 0.2
"""Seconds between two notes of progress that are written down; what comes in between is superseded anyway."""

ASK_EVERY = 0.5
"""Seconds for which an answer about cancellation is good."""

_last = threading.local()


@functools.cache
def ledger() -> Ledger:
    """This process's way to the ledger; a fork gets its own connections."""
    return Ledger(settings().database_url, pool_size=1)


def report_progress(run: Run, percent: float | None, note: str | None) -> None:
    """Write down how far a run is. The ledger being away costs the note, not the work."""
    key, now = (run.task_id, run.execution), time.monotonic()
    if percent != 100 and getattr(_last, "noted", None) == key and now - _last.noted_at < PROGRESS_EVERY:
        return
    _last.noted, _last.noted_at = key, now
    said = {name: value for name, value in (("percent", percent), ("note", note)) if value is not None}
    check_value(said)
    try:
        with ledger().transaction() as cursor:
            claims.record_progress(cursor, run.task_id, run.execution, canonical(said))
    except ChiffonError as error:
        log.warning("progress_not_written", reason=str(error))


def ask_cancelled(run: Run) -> bool:
    """Whether the run is to stop: somebody asked, its claim is lost, or its time is over. False if nobody can say."""
    key, now = (run.task_id, run.execution), time.monotonic()
    if now - run.began > run.timeout:
        return True  # a thread cannot be stopped; it can be told
    if getattr(_last, "asked", None) == key and now - _last.asked_at < ASK_EVERY:
        return bool(_last.answer)
    try:
        with ledger().transaction() as cursor:
            wanted = control.may_go_on(cursor, run.task_id, run.execution)
    except ChiffonError as error:
        log.warning("cancellation_not_known", reason=str(error))
        return False
    _last.asked, _last.asked_at, _last.answer = key, now, not wanted
    return bool(_last.answer)
