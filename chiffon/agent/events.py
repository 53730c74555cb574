"""The events that Flower and `celery events` live on; ``request`` is a `ClaimedRequest`."""

from __future__ import annotations

from typing import Any

from celery.utils.saferepr import saferepr

from chiffon.domain.states import ENDS, State
from chiffon.domain.verdicts import Completed, Replaced, Verdict, WorkError
from chiffon.logs import redacted_text

_REPLACED = WorkError("Replaced", "replaced by another task")


def tell_received(request: Any, eventer: Any) -> None:
    """The event that Celery's strategy sends for each delivery."""
    if eventer and eventer.enabled:
        request.send_event(
            "task-received",
            name=request.name,
            args=request.argsrepr,
            kwargs=request.kwargsrepr,
            root_id=request.root_id,
            parent_id=request.parent_id,
            retries=request.claim.retries,
        )


def tell_ended(request: Any, verdict: Verdict, status: str, *, shown: str | None, runtime: float | None) -> None:
    """The event of a run's end. ``status``: its task's by the ledger, which may overrule all but a success."""
    if isinstance(verdict, Completed):
        request.send_event("task-succeeded", result=shown or saferepr(verdict.result, 1024), runtime=runtime)
        return
    error = _REPLACED if isinstance(verdict, Replaced) else verdict.error
    message, traceback = (redacted_text(text or "", request.app.settings) for text in (error.message, error.traceback))
    if status == State.CANCELLED:
        request.send_event("task-revoked", terminated=True, signum=None, expired=False)
    elif status in ENDS:
        request.send_event("task-failed", exception=f"{error.type}: {message}", traceback=traceback or None)
    else:  # it runs again: retried, given back, or after a crash
        request.send_event("task-retried", exception=message, traceback=traceback or None)
