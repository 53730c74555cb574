"""Publishes by a bare `apply_async` as fast as it can: `CLIENTS COUNT`, with confirms if ``BENCH_CONFIRMS`` is 1."""

from __future__ import annotations

import sys

from benchmarks.apps.answers import answer
from benchmarks.apps.celery_app import app
from benchmarks.apps.crowd import Act, share


def main(clients: int, count: int) -> None:
    """Publish a tenth to warm up, then ``count`` tasks, and say how long it took."""
    task = app.tasks["noop"]

    def make_client() -> Act:
        return lambda key: task.apply_async((key,)) and None

    share(clients, max(clients, count // 10), make_client)
    answer({"count": count, "published_s": share(clients, count, make_client)})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
