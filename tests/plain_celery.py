"""A Celery application that has nothing of Chiffon but the result backend: `celery -A tests.plain_celery worker`."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, chord, group, shared_task

app = Celery("plain", broker=os.environ.get("PLAIN_BROKER"), backend=os.environ.get("PLAIN_BACKEND"))
app.conf.update(broker_connection_retry_on_startup=True, result_extended=True, task_track_started=True)


class OutOfPaint(Exception):
    """An error of the application's own, with more than one argument."""

    def __init__(self, colour: str, litres: float) -> None:
        super().__init__(colour, litres)
        self.litres = litres


@shared_task
def add(x: int, y: int) -> int:
    return x + y


@shared_task
def total(numbers: list[Any]) -> int:
    return sum(total(n) if isinstance(n, list) else n for n in numbers)


@shared_task
def same(value: Any) -> Any:
    return value


@shared_task
def paint(colour: str, litres: float) -> None:
    raise OutOfPaint(colour, litres)


@shared_task
def unsayable(kind: str) -> Any:
    """Return what Python's JSON can say and Postgres cannot keep."""
    return {"NaN": float("nan"), "infinity": [float("inf")], "NUL": "a\x00b", "surrogate": {"k": "\ud800"}}[kind]


@shared_task
def fail_unsayably() -> None:
    raise ValueError("a\x00b", "\ud800", float("nan"))


@shared_task(bind=True, max_retries=1)
def second_time_lucky(self: Any) -> int:
    if not self.request.retries:
        raise self.retry(exc=ValueError("not yet"), countdown=0)
    return int(self.request.retries)


@shared_task(bind=True)
def half_way(self: Any, path: str) -> str:
    """Say PROGRESS, and wait for a file."""
    self.update_state(state="PROGRESS", meta={"done": 50})
    while not Path(path).exists():
        time.sleep(0.02)
    return "whole"


@shared_task(ignore_result=True)
def hush(x: int) -> int:
    return x


@shared_task(bind=True)
def spread(self: Any, numbers: list[int]) -> None:
    """Become a chord."""
    raise self.replace(chord([add.s(n, 1) for n in numbers], total.s()))


@shared_task(bind=True)
def invite(self: Any, x: int) -> int:
    """Add another task to the chord that this one is in."""
    self.add_to_chord(add.s(x, x))
    return x


@shared_task
def send_children(count: int) -> None:
    group(add.s(n, n) for n in range(count))()


@shared_task
def note(value: Any, path: str) -> Any:
    """Write a line to a file, so that calls can be counted."""
    with Path(path).open("a") as file:
        file.write(f"{value}\n")
    return value


@shared_task
def note_failure(request: Any, error: Exception, traceback: Any, path: str) -> None:
    """An errback."""
    note(repr(error), path)
