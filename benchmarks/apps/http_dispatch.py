"""Dispatches by HTTP as fast as it can: `URL CLIENTS COUNT BATCH`; a batch of 1 is one by one."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from typing import Any

import psycopg2

from benchmarks.apps.answers import answer
from benchmarks.apps.connection import Connection
from benchmarks.apps.crowd import Act, share


def main(url: str, clients: int, count: int, batch: int) -> None:
    """Dispatch a tenth to warm up, then ``count`` tasks, and say how long it took until durable and until confirmed."""

    def make_client() -> Act:
        connection = Connection(url)

        def post_one(key: int) -> None:
            _check(*connection.post("/dispatch", _task(key)))

        def post_many(number: int) -> None:
            tasks = [_task(key) for key in range(number * batch, (number + 1) * batch)]
            _check(*connection.post("/dispatch/batch", {"tasks": tasks}))

        return post_one if batch == 1 else post_many

    requests = count // batch
    share(clients, max(clients, requests // 10), make_client)
    _confirmed()
    durable = share(clients, requests, make_client)
    answer({"count": requests * batch, "durable_s": durable, "confirmed_s": durable + _confirmed()})


def _task(key: int) -> dict[str, Any]:
    return {"work_type": "noop", "parameters": {"key": key}}


def _check(status: int, body: bytes) -> None:
    refused = [item for item in json.loads(body).get("items", ()) if item["code"] != 202]
    if status != 202 or refused:
        raise RuntimeError(f"{status} {body[:500]!r}")


def _confirmed() -> float:
    """Return the seconds until the broker has confirmed every message, as the ledger says."""
    begun = time.monotonic()
    with contextlib.closing(psycopg2.connect(os.environ["BENCH_DATABASE_URL"])) as session:
        session.autocommit = True
        with session.cursor() as cursor:
            while True:
                cursor.execute("SELECT EXISTS (SELECT FROM tasks WHERE status = 'pending')")
                if not cursor.fetchone()[0]:
                    return time.monotonic() - begun
                time.sleep(0.005)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
