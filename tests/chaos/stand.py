"""Everything real that the machine breaks: a broker, a Postgres, the API, agents, and a relay on every way between."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import uuid
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

import amqp

from chiffon.config import Settings
from chiffon.devstack import ports, unproxied
from chiffon.devstack.guardian import Guardian
from chiffon.devstack.postgres import PrivatePostgres
from chiffon.devstack.process import Process
from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from chiffon.ledger import migrate
from tests.chaos.incidents import Incidents
from tests.chaos.plan import AGENTS, API, BROKER, CONTENTS, LOCAL, POSTGRES, PROGRAMS, THREADED, Fault, way
from tests.chaos.programs import Keeper, Program
from tests.chaos.relay import Relays
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import eventually
from tests.proxy import through

REPOSITORY = Path(__file__).parents[2]

IDEMPOTENCY_TTL = 30.0
HEARTBEAT = 1.0
OFFLINE_AFTER = 6.0
TAKEOVER_GRACE = 2.0
MAX_CRASHES = 3
DRAIN_SECONDS = 4.0

SETTINGS = {
    "CHIFFON_HEARTBEAT_SECONDS": str(HEARTBEAT),
    "CHIFFON_OFFLINE_AFTER": str(OFFLINE_AFTER),
    "CHIFFON_TAKEOVER_GRACE": str(TAKEOVER_GRACE),
    "CHIFFON_IDEMPOTENCY_TTL": str(IDEMPOTENCY_TTL),
    "CHIFFON_RING_LEASE": "2",
    "CHIFFON_LOST_AFTER": "4",
    "CHIFFON_UNKNOWN_AFTER": "20",
    "CHIFFON_ACK_AFTER": "8",
    "CHIFFON_DRAIN_SECONDS": str(DRAIN_SECONDS),
    "CHIFFON_CANCEL_GRACE": "1",
    "CHIFFON_WORK_AHEAD": "0.5",
    "CHIFFON_MAX_CRASHES": str(MAX_CRASHES),
    "CHIFFON_LOG_LEVEL": "INFO",
}
"""Seconds where the product counts minutes: a short run is to meet each of its deadlines."""

_ALARMS = {
    "memory": ("set_vm_memory_high_watermark", "0.00001"),
    "disk": ("set_disk_free_limit", "1000000GB"),
}
_CALM = {
    "memory": ("set_vm_memory_high_watermark", "0.6"),
    "disk": ("set_disk_free_limit", "50MB"),
}


class Stand:
    """The whole of it, as a context manager. ``folder`` takes the logs and what else is left."""

    def __init__(self, folder: Path, incidents: Incidents, queue_type: str) -> None:
        self.folder = folder
        self._queue_type = queue_type
        self.incidents = incidents
        self.witness = folder / "witness"
        self.api_key = uuid.uuid4().hex
        self.name = uuid.uuid4().hex[:6]
        self._locks: dict[str, threading.Lock] = {}
        self._open = contextlib.ExitStack()

    @property
    def has_priorities(self) -> bool:
        """Whether an urgent task is handed out first: the quorum queues of its broker do not do that."""
        return self._queue_type == "classic"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            guardian = Guardian()
            opening.callback(guardian.close)
            self.rabbitmq = PrivateRabbitMQ(self.folder / "rabbitmq")
            guardian.remove_at_end(self.rabbitmq.data)
            opening.callback(self.rabbitmq.kill)
            self.postgres = PrivatePostgres(self.folder / "postgres")
            guardian.remove_at_end(self.postgres.data)
            opening.callback(self.postgres.stop)
            self.postgres.launch()
            self.rabbitmq.launch()
            self.postgres.wait_until_ready()
            self.database_url = self.postgres.create_database()
            migrate.upgrade(Settings(database_url=self.database_url).direct_url)
            self.rabbitmq.wait_until_ready()
            self._start_programs(opening)
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _start_programs(self, opening: contextlib.ExitStack) -> None:
        relays = Relays()
        opening.callback(relays.close)
        ways = {BROKER: self.rabbitmq.port, POSTGRES: self.postgres.port}
        self.relays = {
            (program, service): relays.before(ports.LOOPBACK, port)
            for program in PROGRAMS
            for service, port in ways.items()
        }
        address = f"{ports.LOOPBACK}:{ports.free_port()}"
        self.api_url = f"http://{address}"
        self.api = self._program(API, "gunicorn", "--bind", address, "--no-control-socket", "--graceful-timeout", "3")
        self.agents = {name: self._agent(name) for name in AGENTS}
        for program in self.programs:
            opening.callback(program.process.kill)
            program.launch()
        eventually("the API to answer", self.api_answers, within=60)
        eventually("every agent to consume", self.all_consume, within=90)
        self.keeper = Keeper(self.programs)
        self.keeper.start()
        opening.callback(self.keeper.stop)

    @property
    def programs(self) -> list[Program]:
        """The API and the agents."""
        return [self.api, *self.agents.values()]

    @property
    def ledger(self) -> LedgerReader:
        """The ledger by SQL, past every relay."""
        return LedgerReader(self.database_url)

    @property
    def amqp(self) -> RawAmqp:
        """The broker, past every relay."""
        return RawAmqp(self.rabbitmq.url)

    def program(self, name: str) -> Program:
        """The API or an agent."""
        return self.api if name == API else self.agents[name]

    def hold(self, fault: Fault) -> AbstractContextManager[object]:
        """Have what a fault is about for oneself: of two faults of one thing the second waits."""
        if fault.kind in LOCAL:
            return self.program(fault.target).lock
        thing = way(fault) if fault.target in PROGRAMS else fault.kind in CONTENTS
        return self._locks.setdefault(f"{fault.target} {thing}", threading.Lock())

    def agent_id(self, name: str) -> str:
        """The name of an agent in the ledger."""
        return f"{name}@{self.name}"

    def api_answers(self) -> bool:
        """Whether the API is up."""
        with contextlib.suppress(OSError):
            return unproxied.session().get(f"{self.api_url}/health/live", timeout=3).status_code == 200
        return False

    def consumers(self) -> int:
        """How many agents the broker hands work to; none while there is no broker or no queue."""
        with contextlib.suppress(OSError, amqp.AMQPError), self.amqp.channel() as channel:
            return int(channel.queue_declare("work_queue", passive=True).consumer_count)
        return 0

    def all_consume(self) -> bool:
        """Whether every agent is among them."""
        return self.consumers() >= len(self.agents)

    def raise_alarm(self, of: str) -> None:
        """Have the broker believe that its memory, or its disk, is full: it takes no more messages."""
        self.rabbitmq.ctl(*_ALARMS[of])

    def clear_alarm(self, of: str) -> None:
        """Let it have its memory, or its disk, again."""
        self.rabbitmq.ctl(*_CALM[of])

    def heal(self) -> None:
        """Undo whatever may still be wrong: everything is up, and every way is free."""
        for relay in self.relays.values():
            relay.swallow_nothing()
            relay.slow_down(0)
            relay.refuse(False)
        self.rabbitmq.resume()
        self.postgres.resume()
        self.rabbitmq.start()
        self.postgres.start()
        for of in _CALM:
            self.clear_alarm(of)
        for program in self.programs:
            with program.lock:
                program.process.resume()
                program.launch()

    def _agent(self, name: str) -> Program:
        pool = "threads" if name in THREADED else "prefork"
        return self._program(
            name, "celery", "-A", "chiffon", "worker", "-n", self.agent_id(name), "-P", pool, "-c", "2"
        )

    def _program(self, name: str, *command: str) -> Program:
        environment = {
            **SETTINGS,
            "CHIFFON_BROKER_URL": through(self.relays[name, BROKER].port, self.rabbitmq.url),
            "CHIFFON_DATABASE_URL": through(self.relays[name, POSTGRES].port, self.database_url),
            "CHIFFON_QUEUE_TYPE": self._queue_type,
            "CHIFFON_API_KEYS": self.api_key,
            "CHIFFON_WORKERS": "workers,tests.chaos.work",
            "CHAOS_WITNESS": str(self.witness),
        }
        process = Process(
            name,
            [sys.executable, "-m", *command],
            log=self.folder / f"{name}.log",
            environment=environment,
            folder=REPOSITORY,
            stop_timeout=40,
        )
        return Program(name, process, self.incidents)


def in_repository() -> None:
    """Be where agents look for `workers` and `tests`."""
    os.chdir(REPOSITORY)
