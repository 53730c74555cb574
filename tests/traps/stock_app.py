"""A Celery application as its documentation has it, with nothing of Chiffon: settings are what a trap is about."""

from __future__ import annotations

import json
import os
from typing import Any

from celery import Celery
from celery.exceptions import Ignore
from celery.signals import task_prerun
from kombu import Exchange, Queue

from tests.traps import deeds

QUEUE = "stock"
DEAD = "stock_dead"

app = Celery("stock", broker=os.environ.get("STOCK_BROKER"), backend=os.environ.get("STOCK_BACKEND"))
app.conf.update(
    task_queues=[
        Queue(
            QUEUE,
            Exchange(QUEUE, "direct"),
            routing_key=QUEUE,
            queue_arguments={"x-dead-letter-exchange": DEAD, **json.loads(os.environ.get("STOCK_ARGUMENTS", "{}"))},
        )
    ],
    task_default_queue=QUEUE,
    task_default_exchange=QUEUE,
    task_default_routing_key=QUEUE,
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
    task_track_started=True,
)
app.conf.update(json.loads(os.environ.get("STOCK_SETTINGS", "{}")))


if os.environ.get("STOCK_VETO"):

    @task_prerun.connect
    def veto(**_: Any) -> None:
        """Want no task to run."""
        raise Ignore


@app.task(name="trap.sign", bind=True)
def sign(self: Any, path: str, seconds: float = 0.0, note: str = "") -> str:
    deeds.sign(path, self.request.id, note or "began")
    deeds.work_for(seconds)
    if seconds:
        deeds.sign(path, self.request.id, "done")
    return "done"


@app.task(name="trap.die", bind=True)
def die(self: Any, path: str, how: str) -> None:
    deeds.sign(path, self.request.id, how)
    deeds.die(how)


@app.task(name="trap.twice", bind=True, max_retries=1)
def twice(self: Any, path: str) -> None:
    deeds.sign(path, self.request.id, self.request.get("tenant"))
    if not self.request.retries:
        raise self.retry(countdown=0)
