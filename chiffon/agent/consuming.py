"""Celery's add_consumer, for the queues that work types have.

A queue that nobody has declared ends the consumer, which starts again and asks for it again: all agents would hang over
one mistyped name, for all are told.
"""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command, nok, ok


@control_command(args=[("queue", str)], signature="<queue>")
def add_consumer(state: Any, queue: str, *_: Any, **__: Any) -> Any:
    """Tell worker(s) to consume from task queue by name."""
    known = sorted(declared.name for declared in state.app.conf.task_queues)
    if queue not in known:
        return nok(f"no work type asks for the queue {queue}; there are {', '.join(known)}")
    state.consumer.call_soon(state.consumer.add_task_queue, queue)
    return ok(f"add consumer {queue}")
