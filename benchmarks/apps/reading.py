"""Asks the API for lists of tasks, as a console would: `URL COUNT`."""

from __future__ import annotations

import json
import statistics
import sys
import time

from benchmarks.apps.answers import answer
from benchmarks.apps.connection import Connection

QUESTIONS = {
    "newest": "/tasks?limit=50",
    "completed": "/tasks?limit=50&status=completed",
    "failed": "/tasks?limit=50&status=failed",
    "label": "/tasks?limit=50&label=customer:7",
}


def main(url: str, count: int) -> None:
    """Ask each question ``count`` times, and say the median in milliseconds."""
    connection = Connection(url)
    found = {}
    for name, path in QUESTIONS.items():
        times = []
        for _ in range(count):
            begun = time.monotonic()
            status, body = connection.get(path)
            times.append((time.monotonic() - begun) * 1000)
            if status != 200:
                raise RuntimeError(f"{status} {body[:500]!r}")
        found[name] = statistics.median(times)
        if name == "newest" and len(json.loads(body)["items"]) < 50:
            raise RuntimeError("there were less than 50 tasks to list")
    answer(found)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
