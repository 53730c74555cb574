"""Publishes tasks by `apply_async`, for a queue that is to be drained: `DEED COUNT`."""

from __future__ import annotations

import sys

from benchmarks.apps.celery_app import app


def main(deed: str, count: int) -> None:
    """Publish ``count`` tasks."""
    task = app.tasks[deed]
    for key in range(count):
        task.apply_async((key,))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
