"""The events that Flower and `celery events` live on; ``request`` is a `ClaimedRequest`."""

from __future__ import annotations

from typing import Any

from celery.utils.saferepr import saferepr

from chiffon.domain.verdicts import Cancelled, Completed, Failed, Replaced, RetryLater, TimedOut, Verdict


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


def tell_ended(request: Any, verdict: Verdict, *, shown: str | None, runtime: float | None) -> None:
    """The events that Flower and `celery events` live on."""
    match verdict:
        case Completed(result):
            request.send_event("task-succeeded", result=shown or saferepr(result, 1024), runtime=runtime)
        case RetryLater(_, error):
            request.send_event("task-retried", exception=error.message, traceback=error.traceback)
        case Replaced():
            request.send_event("task-retried", exception="replaced by another task", traceback=None)
        case Cancelled():
            request.send_event("task-revoked", terminated=True, signum=None, expired=False)
        case Failed(error) | TimedOut(error):
            request.send_event("task-failed", exception=f"{error.type}: {error.message}", traceback=error.traceback)
        case _:
            request.send_event(
                "task-failed", exception=f"{verdict.error.type}: {verdict.error.message}", traceback=None
            )
