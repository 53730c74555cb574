"""Celery's revoke, as an agent does it: the event loop waits for no ledger over it.

Celery first asks the result backend about each task, one after the other, and writes down that it is revoked. Each of
them costs the loop half a minute where that does not answer. An agent that is told of two would take itself for hung,
and all agents are told.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import structlog
from celery import states
from celery.platforms import signals
from celery.worker import state as worker
from celery.worker.control import control_command, ok
from kombu.utils.functional import maybe_list

log = structlog.get_logger(__name__)

_OPEN = frozenset({states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED})
"""What is known of a task that nobody has begun, and that has not ended."""


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: Any, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any) -> Any:
    """Revoke task by task id (or list of ids)."""
    task_ids = frozenset(maybe_list(task_id) or ())
    worker.revoked.update(task_ids)
    log.info("revoked", tasks=sorted(task_ids), terminate=bool(terminate))
    known = {request.id: request for request in list(worker.requests.values()) if request.id in task_ids}
    active = {request.id for request in known.values() if request in worker.active_requests}
    threading.Thread(target=_write_down, args=[state.app.backend, task_ids - active], daemon=True).start()
    if not terminate:
        return ok(f"tasks {sorted(task_ids)} flagged as revoked")
    for request in known.values():
        request.terminate(state.consumer.pool, signal=signals.signum(signal or "SIGTERM"))
    return ok(f"terminate: {', '.join(known) or 'tasks unknown'}")


@control_command(variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]")
def terminate(state: Any, signal: Any, task_id: Any, **_: Any) -> Any:
    """Terminate task by task id (or list of ids)."""
    return revoke(state, task_id, terminate=True, signal=signal)


def _write_down(backend: Any, task_ids: Iterable[str]) -> None:
    """Tell whoever waits for what nobody has begun; the first that cannot be told ends it."""
    try:
        for task_id in task_ids:
            if backend.get_state(task_id) in _OPEN:
                backend.mark_as_revoked(task_id, reason="revoked", store_result=True)
    except Exception as error:  # noqa: BLE001 -- each agent remembers them anyway, and ends them when they come
        log.warning("revoked_not_written_down", reason=str(error))
