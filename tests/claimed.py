"""Claimed tasks as an agent has them in hand, with a clerk that writes nothing down until it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

from celery import Celery
from celery.concurrency.prefork import TaskPool
from kombu.asynchronous import Hub
from kombu.message import Message

from chiffon.agent.app import create_app
from chiffon.agent.commands import Finished
from chiffon.agent.delivery import Delivery
from chiffon.agent.hearing import Hearing
from chiffon.agent.killing import kill
from chiffon.agent.line import Line
from chiffon.agent.pace import Pace
from chiffon.agent.reading import Reader
from chiffon.agent.receipts import Receipts
from chiffon.agent.request import ClaimedRequest
from chiffon.agent.runs import Runs
from chiffon.agent.traffic import Traffic
from chiffon.config import Settings
from chiffon.domain.tasks import Claim
from chiffon.domain.work import registry

CLAIM = Claim(
    task_id="t-1", execution=1, request_id="r-1", trace_id="0" * 32, work_type="echo", queue="work_queue", priority=3,
    parameters={"input": 1}, arguments=[], canvas={}, fingerprint="", timeout=None, soft_timeout=None, max_retries=None,
    retries=0, crashes=0, give_backs=0, attempts=1, origin="http", queued_at=None, age=0.0,
)  # fmt: skip


LIMIT = 30.0
"""Seconds that the user of `runs_of` lets work run."""


class Channel:
    """Notes what the broker is told."""

    no_ack_consumers = None

    def __init__(self) -> None:
        self.told: list[str] = []

    def basic_ack(self, tag: Any, multiple: bool = False) -> None:
        """Note it."""
        self.told.append("acknowledged")

    def basic_reject(self, tag: Any, requeue: bool) -> None:
        """Note it."""
        assert not requeue
        self.told.append("dead-lettered")


class Books:
    """A clerk that writes nothing down until it is told to."""

    life = SimpleNamespace(incarnation=1)

    def __init__(self) -> None:
        self.commands: list[Any] = []

    def tell(self, command: Any) -> None:
        """Keep it."""
        self.commands.append(command)

    def settlements(self) -> list[Finished]:
        """The settlements that it was given."""
        return [command for command in self.commands if isinstance(command, Finished)]

    def verdicts(self) -> list[str]:
        """What each was settled as."""
        return [type(finished.settlement.verdict).__name__ for finished in self.settlements()]


@cache
def app() -> Celery:
    """The agents' application."""
    return create_app(Settings())


@contextmanager
def real_pool(**options: Any) -> Iterator[TaskPool]:
    """A pool of one process on an event loop of its own, as a worker makes it; ``options``: of Celery's."""
    hub = Hub()
    pool = TaskPool(limit=1, app=app(), threads=False, initargs=(app(), "agent@test"), **options)
    pool.start()
    pool.register_with_event_loop(hub)
    yield pool
    for process in pool._pool._pool:
        kill(process.pid)
    pool.terminate()
    hub.close()


def delivery(channel: Channel, receipts: Receipts | None = None) -> Delivery:
    """A delivery of that channel."""
    message = Message(b"", channel=channel, delivery_tag=1)
    receipts = Receipts(channel.basic_ack) if receipts is None else receipts
    traffic = Traffic(lambda: ("work_queue",), 1, 10.0)
    return Delivery(message, traffic, Hearing(), receipts, lambda: True, ())


def claimed(
    books: Books, *, channel: Channel | None = None, receipts: Receipts | None = None, timeout: float = 60.0, **of: Any
) -> ClaimedRequest:
    """A claimed task in hand; ``of``: what its claim has other than `CLAIM`."""
    return ClaimedRequest(
        CLAIM._replace(**of),
        delivery(channel or Channel(), receipts),
        clerk=books,  # type: ignore[arg-type]
        reader=Reader(registry, app().tasks, 1_000),
        task=app().tasks["echo"],
        timeout=timeout,
        work_type=None,
        shown=("[]", "{}"),
        hostname="agent@test",
        eventer=None,
        app=app(),
        connection_errors=(),
    )


def runs_of(books: Books) -> Runs:
    """What an agent has in hand whose user wants no work to take long."""
    app = create_app(Settings(default_timeout=LIMIT))
    app.conf.update(task_time_limit=LIMIT, task_soft_time_limit=LIMIT / 2)
    consumer = SimpleNamespace(app=app, hostname="agent@test", event_dispatcher=None, connection_errors=())
    pace = Pace(app.settings.work_ahead)
    line = Line(lambda request: None, pace, None, lambda: 1)
    reader = Reader(registry, app.tasks, 1_000)
    return Runs(consumer, app.settings, books, reader, pace, line, 1)  # type: ignore[arg-type]
