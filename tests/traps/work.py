"""The deeds as work types: `CHIFFON_WORKERS` names this module beside the others."""

from __future__ import annotations

from typing import Any

from celery import chain, chord, shared_task, signature

from chiffon import WorkContext, work
from tests.traps import deeds


@work("trap.sign", timeout=60)
def sign(context: WorkContext, path: str, seconds: float = 0.0, note: str = "") -> str:
    """Sign, work for some seconds, sign once more as done."""
    deeds.sign(path, context.task_id, note or "began", context.attempt)
    deeds.work_for(seconds)
    if seconds:
        deeds.sign(path, context.task_id, "done", context.attempt)
    return "done"


@work("trap.die", timeout=60)
def die(context: WorkContext, path: str, how: str) -> None:
    """Sign, and take the process along."""
    deeds.sign(path, context.task_id, how, context.attempt)
    deeds.die(how)


@shared_task(name="trap.twice", bind=True, max_retries=1)
def twice(self: Any, path: str) -> None:
    """Celery's own kind of task: sign with a header that its sender gave, and be run once more."""
    deeds.sign(path, self.request.id, self.request.get("tenant"))
    if not self.request.retries:
        raise self.retry(countdown=0)


@shared_task(name="trap.spread")
def spread(length: int) -> str:
    """A result that is larger than what it was asked with."""
    return "x" * length


@shared_task(name="trap.same_at_second_attempt", bind=True, max_retries=1)
def same_at_second_attempt(self: Any, said: str) -> str:
    """Be run once more, as it was."""
    if not self.request.retries:
        raise self.retry(countdown=0)
    return said


@shared_task(name="trap.send_chain")
def send_chain(length: int) -> str:
    """Call a chord that has a chain in its header; the id of its body."""
    steps = chain(signature("echo", args=(number,), immutable=True) for number in range(length))
    return str(chord([steps, signature("echo", args=("beside",))], signature("echo")).apply_async().id)
