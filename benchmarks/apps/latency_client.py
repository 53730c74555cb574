"""Dispatches at a given rate and waits for each result: `WAY RATE COUNT CLIENTS`, and the URL of the API for `wait`."""

from __future__ import annotations

import sys

from benchmarks.apps.answers import answer
from benchmarks.apps.connection import Connection
from benchmarks.apps.crowd import Act, arrive

PATIENCE = 30


def main(way: str, rate: float, count: int, clients: int, url: str = "") -> None:
    """Say when each task was due, and when its result was known here."""
    make_client = _celery_client if way == "get" else lambda: _http_client(url)
    answer(arrive(rate, count, clients, make_client))


def _celery_client() -> Act:
    from benchmarks.apps.celery_app import app, destination

    def act(key: int) -> None:
        app.send_task("noop", (key,), **destination()).get(timeout=PATIENCE)

    return act


def _http_client(url: str) -> Act:
    connection = Connection(url)

    def act(key: int) -> None:
        order = {"work_type": "noop", "parameters": {"key": key}}
        status, body = connection.post("/dispatch", order, f"Prefer: wait={PATIENCE}")
        if status != 200:
            raise RuntimeError(f"{status} {body[:500]!r}")

    return act


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
