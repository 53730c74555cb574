"""The deeds as work types: `CHIFFON_WORKERS` names this module beside the others."""

from __future__ import annotations

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
