"""Runs as a process of the pool makes them: what it knows of a task, and work that raises."""

from __future__ import annotations

from typing import Any

from celery import Celery

from chiffon.agent.task import as_celery_task
from chiffon.domain.work import WorkTypes, work

FACTS: dict[str, Any] = {
    "execution": 1, "trace_id": "0" * 32, "request_id": "r", "attempt": 1, "retries": 0, "max_retries": None,
    "timeout": 60.0,
}  # fmt: skip
"""The fields of `Run` that the agent and the claim know."""


def raising(app: Celery, error: BaseException, *, retries: int = 0) -> str:
    """The name of a work type that raises this."""

    def raises() -> None:
        raise error

    types = WorkTypes()
    work("test.raises", retries=retries, into=types)(raises)
    app.register_task(as_celery_task(types.get("test.raises"), app.settings))
    return "test.raises"
