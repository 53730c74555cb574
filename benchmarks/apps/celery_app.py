"""Bare Celery, as its users set it up: ``BENCH_RESULTS`` says what becomes of results, all else is the default."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from benchmarks.apps.deeds import DEEDS


def create_app(results: str) -> Celery:
    """The application.

    ``results``: ``off``, ``late`` (off, and acknowledged only after the run), in the ``database``, there and each start
    ``tracked``, by ``rpc``, in ``chiffon``'s ledger.
    """
    application = Celery("bare", broker=os.environ["BENCH_BROKER_URL"])
    database = f"db+postgresql+psycopg2://{os.environ['BENCH_DATABASE_URL'].partition('://')[2]}"
    match results:
        case "off":
            application.conf.task_ignore_result = True
        case "database":
            application.conf.result_backend = database
        case "tracked":
            application.conf.update(result_backend=database, task_track_started=True)
        case "rpc":
            application.conf.result_backend = "rpc://"
        case "late":
            application.conf.update(task_ignore_result=True, task_acks_late=True, task_reject_on_worker_lost=True)
        case "chiffon":
            application.conf.result_backend = f"chiffon+{os.environ['BENCH_DATABASE_URL']}"
        case _:
            raise ValueError(f"no such way to keep results: {results}")
    if os.environ.get("BENCH_CONFIRMS") == "1":
        application.conf.broker_transport_options = {"confirm_publish": True}
    for name, deed in DEEDS.items():
        application.task(name=name)(deed)
    return application


def destination() -> dict[str, Any]:
    """Where a client's messages go: to Celery's own queue, or to Chiffon's agents, as its README says."""
    if os.environ["BENCH_RESULTS"] == "chiffon":
        return {"exchange": "work", "routing_key": "work_queue"}
    return {}


app = create_app(os.environ["BENCH_RESULTS"])
