"""Bare Celery, as its users set it up: ``BENCH_RESULTS`` says what becomes of results, all else is the default."""

from __future__ import annotations

import os

from celery import Celery

from benchmarks.apps.deeds import DEEDS


def create_app(results: str) -> Celery:
    """The application, with results ``off``, in the ``database``, there with each start ``tracked``, or by ``rpc``."""
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
        case _:
            raise ValueError(f"no such way to keep results: {results}")
    for name, deed in DEEDS.items():
        application.task(name=name)(deed)
    return application


app = create_app(os.environ["BENCH_RESULTS"])
