"""procrastinate, which needs Postgres alone; run as a program, it makes its tables and defers: `DEED COUNT`."""

from __future__ import annotations

import os
import sys

from procrastinate import App, PsycopgConnector
from procrastinate.types import JSONDict

from benchmarks.apps.deeds import DEEDS

BATCH = 500

app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_DATABASE_URL"]))
tasks = {name: app.task(name=name)(deed) for name, deed in DEEDS.items()}


def main(deed: str, count: int) -> None:
    """Make the tables, and defer ``count`` tasks."""
    with app.open():
        app.schema_manager.apply_schema()
        for begin in range(0, count, BATCH):
            keys = range(begin, min(begin + BATCH, count))
            tasks[deed].batch_defer(*[JSONDict(key=key) for key in keys])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
