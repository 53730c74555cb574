"""Time limits are each task's own: the pool is left none that it would put on what brings no limit along."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery.concurrency.prefork import TaskPool as Prefork


def leave_limits_to_tasks(pool: Any, tasks: Iterable[Any], *, soft: float | None) -> None:
    """Have every task know its soft limit, by default ``soft`` (seconds), and the pool none of its own.

    A hand-over brings none along, for its members have theirs; Celery's ``task_time_limit`` would end it, and charge
    whoever runs then.
    """
    for task in tasks:
        task.soft_time_limit = task.soft_time_limit or soft
    if isinstance(pool, Prefork) and pool._pool is not None:
        pool._pool.timeout = pool._pool.soft_timeout = None
