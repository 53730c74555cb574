"""Stock Celery as processes: workers of `tests.traps.stock_app`, and a client of the same application."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery
from kombu import Connection, Exchange, Queue

from chiffon.devstack.process import Process
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import eventually
from tests.traps.stock_app import DEAD, QUEUE

ROOT = Path(__file__).parents[2]


@dataclass
class Stock:
    """Stock Celery on the broker at ``broker_url``; its queue has a dead letter queue, as Chiffon's have.

    ``arguments``: of its queue.
    """

    broker_url: str
    folder: Path
    backend: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    _workers: list[Process] = field(default_factory=list)

    @property
    def amqp(self) -> RawAmqp:
        """A bare client of its broker."""
        return RawAmqp(self.broker_url)

    def declare(self) -> None:
        """Have its exchange, its queue and its dead letters on the broker."""
        arguments = {"x-dead-letter-exchange": DEAD, **self.arguments}
        with Connection(self.broker_url) as connection:
            for queue in (
                Queue(QUEUE, Exchange(QUEUE, "direct"), routing_key=QUEUE, queue_arguments=arguments),
                Queue(DEAD, Exchange(DEAD, "fanout")),
            ):
                queue(connection.default_channel).declare()

    def launch(
        self, *options: str, broker_url: str = "", variables: Mapping[str, str] | None = None, **settings: Any
    ) -> Process:
        """Start a worker without waiting until it consumes. ``variables``: environment; ``settings``: Celery's."""
        worker = Process(
            "a stock worker",
            [
                *(sys.executable, "-m", "celery", "-A", "tests.traps.stock_app", "worker", "-l", "info"),
                *("--without-gossip", "--without-mingle", "-n", f"stock{len(self._workers)}@test"),
                *("-c", "1", *options),
            ],
            log=self.folder / f"stock-{len(self._workers)}.log",
            folder=ROOT,
            environment={
                "STOCK_BROKER": broker_url or self.broker_url,
                "STOCK_BACKEND": self.backend,
                "STOCK_ARGUMENTS": json.dumps(self.arguments),
                "STOCK_SETTINGS": json.dumps(settings),
                **(variables or {}),
            },
            ready=lambda: "ready." in worker.log.read_text(errors="replace"),
        )
        self._workers.append(worker)
        worker.launch()
        return worker

    def start(self, *options: str, broker_url: str = "", **settings: Any) -> Process:
        """Start a worker, and return when it consumes."""
        worker = self.launch(*options, broker_url=broker_url, **settings)
        worker.wait_until_ready()
        return worker

    @contextlib.contextmanager
    def client(self, **settings: Any) -> Iterator[Celery]:
        """Lend a client."""
        client = Celery("client", broker=self.broker_url, backend=self.backend or None, set_as_current=False)
        client.conf.update(settings)
        try:
            yield client
        finally:
            client.close()

    def send(self, name: str, *, priority: int = 0, headers: Mapping[str, Any] | None = None, **parameters: Any) -> str:
        """Send work to its queue as any client does; the task's id. ``headers``: beside Celery's own."""
        with self.client() as client:
            sent = client.send_task(
                name, kwargs=parameters, exchange=QUEUE, routing_key=QUEUE, priority=priority, headers=headers
            )
            return str(sent.id)

    def launch_sender(self, **settings: Any) -> Process:
        """Start a program that sends one task, and then ends."""
        sender = Process(
            "a stock client",
            [sys.executable, "-c", "from tests.traps.stock_app import app; app.send_task('trap.sign')"],
            log=self.folder / "stock-sender.log",
            folder=ROOT,
            environment={"STOCK_BROKER": self.broker_url, "STOCK_SETTINGS": json.dumps(settings)},
        )
        self._workers.append(sender)
        sender.launch()
        return sender

    def state(self, task_id: str) -> str:
        """What Celery says of a task."""
        with self.client() as client:
            return str(client.AsyncResult(task_id).state)

    def lost(self, worker: Process) -> bool:
        """End a worker that has had its queue's messages; whether none of them is back, nor a dead letter."""
        worker.kill()
        eventually("the broker to see it", lambda: self._consumers() == 0)
        return self.amqp.ready(QUEUE) == 0 and self.amqp.ready(DEAD) == 0

    def _consumers(self) -> int:
        with self.amqp.channel() as channel:
            return int(channel.queue_declare(QUEUE, passive=True).consumer_count)

    def end(self) -> None:
        """End every worker that still runs."""
        for worker in self._workers:
            worker.kill()
