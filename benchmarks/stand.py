"""Where it is measured: a private broker and Postgres, and for each round a ground of its own on them."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import amqp
import psycopg2

from benchmarks import tally
from benchmarks.errors import RoundFailed
from chiffon.config import Settings
from chiffon.devstack.guardian import Guardian
from chiffon.devstack.postgres import PrivatePostgres
from chiffon.devstack.process import Process
from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from chiffon.ledger import migrate

REPOSITORY = Path(__file__).parents[1]

EMPTY = "template1"
LEDGER = "bench_ledger"
"""Databases to copy: one with nothing in it, and one with the ledger's tables."""

PATIENCE = 60.0
"""Seconds without any progress after which a round has failed."""

PAUSE = 0.005
"""Seconds between two looks."""


@dataclass(frozen=True)
class Ground:
    """One round's own: an empty virtual host, a database, a folder, and the processes that were started on them."""

    broker_url: str
    database_url: str
    folder: Path
    together: int = 1
    """How many processes are to begin to run tasks together."""

    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    _processes: list[Process] = field(default_factory=list)

    @property
    def tally(self) -> tally.Tally:
        """The runs of its tasks."""
        return tally.Tally(self.folder / "tally")

    def program(
        self,
        name: str,
        *command: str,
        environment: Mapping[str, str] | None = None,
        ready: Callable[[], bool] = lambda: True,
    ) -> Process:
        """Describe a Python program (``python -m ...``) in a session of its own; it ends with the round."""
        surroundings = {
            "BENCH_BROKER_URL": self.broker_url,
            "BENCH_DATABASE_URL": self.database_url,
            tally.FOLDER: str(self.tally.folder),
            tally.TOGETHER: str(self.together),
            **(environment or {}),
        }
        process = Process(
            name,
            [sys.executable, "-m", *command],
            log=self.folder / f"{name}.log",
            environment=surroundings,
            folder=REPOSITORY,
            ready=ready,
        )
        self._processes.append(process)
        return process

    def start(self, name: str, *command: str, **options: Any) -> Process:
        """Start a program and wait until it is ready. Raises ProcessFailed."""
        process = self.program(name, *command, **options)
        process.start()
        return process

    def ask(self, name: str, *command: str, environment: Mapping[str, str] | None = None, within: float = 600) -> Any:
        """Run a program to its end and return what it left as JSON in ``BENCH_ANSWER``, if anything.

        Raises RoundFailed when it fails, or has not ended ``within`` seconds.
        """
        answer = self.folder / f"{name}.json"
        answer.unlink(missing_ok=True)
        process = self.program(name, *command, environment={"BENCH_ANSWER": str(answer), **(environment or {})})
        process.launch()
        deadline = time.monotonic() + within
        while process.is_running():
            if time.monotonic() > deadline:
                process.kill()
                raise RoundFailed(f"{name} had not ended after {within:g} s\n{process.tail()}")
            time.sleep(PAUSE)
        if process.exit_code != 0:
            raise RoundFailed(f"{name} ended with {process.exit_code}: {process.tail(1)}\n{process.tail()}")
        return json.loads(answer.read_text()) if answer.exists() else None

    def consumers(self, queue: str) -> int:
        """How many consumers a queue has; none while it is not there."""
        parts = urlsplit(self.broker_url)
        with (
            contextlib.suppress(amqp.AMQPError, OSError),
            amqp.Connection(
                f"{parts.hostname}:{parts.port}", parts.username, parts.password, virtual_host=parts.path[1:]
            ) as connection,
        ):
            return int(connection.channel().queue_declare(queue, passive=True).consumer_count)
        return 0

    @contextlib.contextmanager
    def database(self) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
        """Lend a session, each statement its own transaction, as a function that returns the rows."""
        with contextlib.closing(psycopg2.connect(self.database_url)) as session, session.cursor() as cursor:
            session.autocommit = True

            def ask(statement: str, *values: Any) -> list[tuple[Any, ...]]:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []

            yield ask

    def wait(self, what: str, progress: Callable[[], int], goal: int, *, pause: float = PAUSE) -> None:
        """Wait until ``progress`` has reached the goal. Raises RoundFailed when it stands still, or a program died."""
        seen, deadline = progress(), time.monotonic() + PATIENCE
        while seen < goal:
            time.sleep(pause)
            found = progress()
            if found != seen:
                seen, deadline = found, time.monotonic() + PATIENCE
            elif time.monotonic() > deadline:
                raise RoundFailed(f"{what}: {seen} of {goal}, and no more for {PATIENCE:g} s\n{self._tails()}")
            for process in self._processes:
                if process.exit_code not in (None, 0):
                    raise RoundFailed(f"{process.name} ended with {process.exit_code}\n{process.tail()}")

    def running(self, name: str) -> Process:
        """Return the program of that name."""
        return next(process for process in self._processes if process.name == name)

    def kill(self, process: Process) -> None:
        """End a program of the round before the round ends; that is no failure."""
        process.kill()
        self._processes.remove(process)

    def end(self) -> None:
        """End every process that still runs, at once."""
        for process in self._processes:
            process.kill()

    def _tails(self) -> str:
        return "\n".join(f"{process.name}: {process.tail(5)}" for process in self._processes if process.is_running())


class Stand:
    """The private services, as a context manager. Whatever happens to this process, they end with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            guardian = Guardian()
            opening.callback(guardian.close)
            self.rabbitmq = PrivateRabbitMQ(self.folder / "rabbitmq", management=True)
            guardian.remove_at_end(self.rabbitmq.data)
            opening.callback(self.rabbitmq.kill)  # nobody wants its data, and an orderly stop takes seconds
            self.postgres = PrivatePostgres(self.folder / "postgres")
            guardian.remove_at_end(self.postgres.data)
            opening.callback(self.postgres.kill)
            self.postgres.launch()
            self.rabbitmq.launch()
            self.postgres.wait_until_ready()
            migrate.upgrade(Settings(database_url=self.postgres.create_database(LEDGER)).direct_url)
            self.rabbitmq.wait_until_ready()
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def versions(self) -> dict[str, str]:
        """What the services say they are."""
        return {"rabbitmq": self.rabbitmq.version, "postgres": self.postgres.version}

    @contextlib.contextmanager
    def ground(self, template: str, *, together: int = 1) -> Iterator[Ground]:
        """Lend a ground for one round, with a database that is a copy of ``template``."""
        database_url = self.postgres.create_database(template=template)
        try:
            with self.ground_on(database_url, together=together) as ground:
                yield ground
        finally:
            self.postgres.drop_database(database_url)

    @contextlib.contextmanager
    def ground_on(self, database_url: str, *, together: int = 1) -> Iterator[Ground]:
        """Lend a ground for one round on a database that stays."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        broker_url = self.rabbitmq.create_vhost()
        ground = Ground(broker_url, database_url, folder, together)
        try:
            yield ground
        finally:
            ground.end()
            self.rabbitmq.drop_vhost(broker_url)
