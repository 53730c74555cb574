"""Who is measured: each with what its users get when they change nothing, and two processes that run tasks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.errors import RoundFailed
from benchmarks.options import PROCESSES
from benchmarks.stand import EMPTY, LEDGER, Ground
from chiffon.devstack import ports, unproxied
from chiffon.devstack.process import Process

Database = Callable[..., list[tuple[Any, ...]]]
"""Runs a statement and returns its rows."""


class Contender(Protocol):
    """One system, in one setting."""

    @property
    def name(self) -> str:
        """As options and results write it."""

    @property
    def template(self) -> str:
        """The database it starts from."""

    @property
    def keeps_ends(self) -> bool:
        """Whether it writes down how a task ended; then a task counts as done when that is written."""

    def fill(self, ground: Ground, deed: str, count: int) -> None:
        """Leave ``count`` tasks waiting, safe with the broker or in the database, and no process running."""

    def start(self, ground: Ground) -> None:
        """Start what runs the tasks, without waiting for it."""

    def ended(self, database: Database, count: int) -> int:
        """How many of the ``count`` tasks have an end that is written down."""


@dataclass(frozen=True)
class BareCelery:
    """A Celery worker and nothing else. ``results``: see `benchmarks.apps.celery_app`."""

    name: str
    results: str
    template: str = EMPTY
    queue: str = "celery"

    @property
    def keeps_ends(self) -> bool:
        """In the database or not at all."""
        return self.results in {"database", "tracked"}

    def environment(self, ground: Ground) -> dict[str, str]:
        """What its programs are told, beside what the ground says."""
        return {"BENCH_RESULTS": self.results}

    def fill(self, ground: Ground, deed: str, count: int) -> None:
        """By `apply_async`."""
        ground.ask("fill", "benchmarks.apps.celery_fill", deed, str(count), environment=self.environment(ground))

    def start(self, ground: Ground) -> None:
        """One worker, with a pool of processes."""
        self.agent(ground).launch()

    def agent(self, ground: Ground, name: str = "worker") -> Process:
        """Describe a worker, not started."""
        pool = ("-P", "prefork", "-c", str(PROCESSES))
        command = ("celery", "-A", "benchmarks.apps.celery_app", "worker", "-n", f"{name}-{ground.name}@%h", *pool)
        return ground.program(name, *command, environment=self.environment(ground))

    def ended(self, database: Database, count: int) -> int:
        """What its result backend says."""
        if not self.keeps_ends:
            return count
        return int(database("SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'")[0][0])


@dataclass(frozen=True)
class Dramatiq:
    """dramatiq without results: two processes of one thread, to be of the same size."""

    name: str = "dramatiq"
    template: str = EMPTY
    keeps_ends: bool = False

    def fill(self, ground: Ground, deed: str, count: int) -> None:
        """By `actor.send`."""
        ground.ask("fill", "benchmarks.apps.dramatiq_app", deed, str(count))

    def start(self, ground: Ground) -> None:
        """One command starts both processes."""
        size = ("--processes", str(PROCESSES), "--threads", "1")
        ground.program("worker", "dramatiq", "benchmarks.apps.dramatiq_app", *size).launch()

    def ended(self, database: Database, count: int) -> int:
        """It keeps nothing to wait for."""
        return count


@dataclass(frozen=True)
class Procrastinate:
    """procrastinate: two workers, each a process."""

    name: str = "procrastinate"
    template: str = EMPTY
    keeps_ends: bool = True

    def fill(self, ground: Ground, deed: str, count: int) -> None:
        """By `batch_defer`."""
        ground.ask("fill", "benchmarks.apps.procrastinate_app", deed, str(count))

    def start(self, ground: Ground) -> None:
        """A worker is one process, so it is started twice."""
        for number in range(PROCESSES):
            command = ("procrastinate", "--app", "benchmarks.apps.procrastinate_app.app", "worker")
            ground.program(f"worker{number}", *command).launch()

    def ended(self, database: Database, count: int) -> int:
        """What its table says."""
        return int(database("SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'")[0][0])


@dataclass(frozen=True)
class Chiffon:
    """An agent, with everything that is on by default.

    ``work_ahead``, ``retention``: as CHIFFON_WORK_AHEAD and CHIFFON_RETENTION; empty is the default.
    """

    name: str
    work_ahead: str
    retention: str = ""
    template: str = LEDGER
    keeps_ends: bool = True
    queue: str = "work_queue"

    BATCH = 500
    KEY = "bench"

    def environment(self, ground: Ground) -> dict[str, str]:
        """What its programs and its clients are told; whatever is not named here is the default."""
        return {
            "BENCH_RESULTS": "chiffon",
            "CHIFFON_BROKER_URL": ground.broker_url,
            "CHIFFON_DATABASE_URL": ground.database_url,
            "CHIFFON_API_KEYS": self.KEY,
            "CHIFFON_WORKERS": "benchmarks.apps.chiffon_work",
            "CHIFFON_WORK_AHEAD": self.work_ahead,
            "CHIFFON_RETENTION": self.retention,
            "CHIFFON_LOG_LEVEL": "WARNING",  # as Celery's and the others' workers have it by default
        }

    @contextlib.contextmanager
    def api(self, ground: Ground) -> Iterator[str]:
        """Serve the API, by gunicorn with two workers, and lend its URL."""
        address = f"{ports.LOOPBACK}:{ports.free_port()}"
        url = f"http://{address}"

        def answers() -> bool:
            return unproxied.session().get(f"{url}/health/live", timeout=5).status_code == 200

        command = ("gunicorn", "--bind", address, "--no-control-socket")
        process = ground.start("api", *command, environment=self.environment(ground), ready=answers)
        try:
            yield url
        finally:
            ground.kill(process)

    def fill(self, ground: Ground, deed: str, count: int) -> None:
        """By `POST /dispatch/batch`; waits until the broker has confirmed every message."""
        with self.api(ground) as url, ground.database() as database:
            self.dispatch(url, deed, count)
            ground.wait("confirmed", lambda: -waiting(database, "pending"), 0)

    def dispatch(self, url: str, deed: str, count: int, **options: Any) -> None:
        """Dispatch, by the API at ``url``, ``count`` tasks with further ``options``. Raises RoundFailed."""
        with unproxied.session() as session:
            session.headers["Authorization"] = f"Bearer {self.KEY}"
            for begin in range(0, count, self.BATCH):
                keys = range(begin, min(begin + self.BATCH, count))
                tasks: list[Any] = [{"work_type": deed, "parameters": {"key": key}, **options} for key in keys]
                answer = session.post(f"{url}/dispatch/batch", json={"tasks": tasks}, timeout=60)
                if answer.status_code != 202 or any(item["code"] != 202 for item in answer.json()["items"]):
                    raise RoundFailed(f"POST /dispatch/batch: {answer.status_code} {answer.text[:500]}")

    def start(self, ground: Ground) -> None:
        """One agent, with a pool of processes."""
        self.agent(ground).launch()

    def agent(self, ground: Ground, name: str = "agent") -> Process:
        """Describe an agent, not started."""
        pool = ("-P", "prefork", "-c", str(PROCESSES))
        command = ("celery", "-A", "chiffon", "worker", "-n", f"{name}-{ground.name}@%h", *pool)
        return ground.program(name, *command, environment=self.environment(ground))

    def ended(self, database: Database, count: int) -> int:
        """What the ledger says: everything but what is still on its way."""
        return count - sum(waiting(database, status) for status in ("pending", "queued", "running", "retrying"))


def waiting(database: Database, status: str) -> int:
    """Count the ledger's tasks in a state that is not an end. Each has an index as small as the tasks in it."""
    return int(database(f"SELECT count(*) FROM tasks WHERE status = '{status}'")[0][0])


CELERY_OFF = BareCelery("celery-results-off", "off")
CELERY_DATABASE = BareCelery("celery-db", "database")
CELERY_TRACKED = BareCelery("celery-db-tracked", "tracked")
CELERY_RPC = BareCelery("celery-rpc", "rpc")
CELERY_LATE = BareCelery("celery-acks-late", "late")
CHIFFON = Chiffon("chiffon", "")
CHIFFON_THROUGHPUT = Chiffon("chiffon-throughput", "1")

DRAINERS: tuple[Contender, ...] = (
    CELERY_OFF,
    CELERY_DATABASE,
    CELERY_TRACKED,
    Dramatiq(),
    Procrastinate(),
    CHIFFON,
    CHIFFON_THROUGHPUT,
)
"""Those that are measured at draining."""
