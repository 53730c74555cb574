"""A stock worker of `tests.plain_celery`, and a client of the same application."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from celery import Celery

from chiffon.devstack.process import Process

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def plain_worker(folder: Path, broker: str, backend: str, pool: str = "prefork") -> Iterator[Process]:
    """Lend a worker that consumes from ``broker`` and keeps its results at ``backend``."""
    worker = Process(
        "the plain worker",
        [sys.executable, "-m", "celery", "-A", "tests.plain_celery", "worker", "-P", pool, "-c", "4", "-l", "info"],
        log=folder / "worker.log",
        folder=ROOT,
        environment={"PLAIN_BROKER": broker, "PLAIN_BACKEND": backend},
        ready=lambda: "ready." in worker.tail(),
    )
    worker.start()
    try:
        yield worker
    finally:
        worker.kill()


@contextlib.contextmanager
def plain_client(broker: str, backend: str, **settings: object) -> Iterator[Celery]:
    """Lend a client, the current application for a while, whose tasks are those of `tests.plain_celery`."""
    client = Celery("client", broker=broker, backend=backend, set_as_current=False)
    client.conf.update(settings)
    client.set_current()
    try:
        yield client
    finally:
        client.close()
