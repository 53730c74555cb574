"""pytest-celery's nodes, carried by processes: where its own wrap a Docker container, these wrap a service.

What a node asks of its container (start, kill, logs, configuration) is answered by whatever `chiffon.devstack` runs:
the broker, Postgres, an agent. `teardown()` of pytest-celery's clusters and setup does nothing, so the fixtures tear
each node down.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any, Protocol

import psutil
from celery import __version__ as celery_version
from pytest_celery import CeleryTestBackend, CeleryTestContainer, CeleryTestWorker, RabbitMQTestBroker

from chiffon.devstack.guardian import lives
from chiffon.devstack.process import Process
from chiffon.devstack.rabbitmq import broker_version
from tests.e2e.waiting import eventually

HARD = {None, "SIGKILL", int(SIGKILL)}
"""The ways to say SIGKILL to `kill`."""


class Service(Protocol):
    """What plays a container's part; each of these as in `chiffon.devstack`."""

    @property
    def log(self) -> Path: ...

    def start(self) -> None: ...

    def wait_until_ready(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def is_running(self) -> bool: ...


class ServiceContainer(CeleryTestContainer):
    """A service in a container's place. ``celeryconfig``: what a Celery application needs to reach it."""

    def __init__(self, name: str, service: Service, celeryconfig: dict[str, str]) -> None:
        # The base's own reads the attributes of a Docker container, and there is none.
        self._name = name
        self._service = service
        self._celeryconfig = celeryconfig

    @property
    def name(self) -> str:
        """The service's name."""
        return self._name

    @property
    def id(self) -> str:
        """The same: it is unique."""
        return self._name

    @property
    def status(self) -> str:
        """In Docker's words."""
        return "running" if self._service.is_running() else "exited"

    @property
    def celeryconfig(self) -> dict[str, str]:
        """What a Celery application needs to reach it; a copy, for nodes write into it."""
        return dict(self._celeryconfig)

    def ready(self) -> bool:
        """Wait until it is ready. Raises ProcessFailed."""
        self._service.wait_until_ready()
        return True

    def logs(self) -> str:
        """Everything that it has logged."""
        return self._service.log.read_text(errors="replace") if self._service.log.exists() else ""

    def kill(self, signal: str | int | None = None) -> None:
        """End it as a crash would; or in order, by any other signal than SIGKILL. Return when it is gone."""
        if signal in HARD:
            self._service.kill()
        else:
            self._service.stop()

    def reload(self) -> None:
        """Nothing is remembered that could be stale."""

    def restart(self, timeout: int = 10) -> None:
        """Stop it if it runs, and start it with the data that it had."""
        self._service.stop()
        self._service.start()

    def teardown(self) -> None:
        """Leave it: the session's services outlive the test."""


class AgentContainer(ServiceContainer):
    """An agent: the worker's main process with the children of its pool."""

    def __init__(self, name: str, process: Process, queues: str) -> None:
        super().__init__(name, process, {})
        self._process = process
        self._queues = queues
        self._orphans: list[psutil.Process] = []

    @property
    def pid(self) -> int:
        """The main process."""
        return self._process.pid

    def children(self) -> list[psutil.Process]:
        """The processes of its pool; what an agent that was killed has left of them."""
        if self._process.is_running():
            return psutil.Process(self.pid).children(recursive=True)
        return [process for process in self._orphans if lives(process)]

    def kill(self, signal: str | int | None = None) -> None:
        """As the base's; but SIGKILL goes to the main process alone, which is what the kernel does when memory ends."""
        if signal not in HARD:
            super().kill(signal)
            return
        self._orphans = self.children()
        self._process.signal(SIGKILL)
        eventually(f"{self.name} to be gone", lambda: not self._process.is_running())

    @property
    def exit_code(self) -> int | None:
        """As a shell has it, negative for a signal; None while it runs."""
        return self._process.exit_code

    def signal(self, number: Signals) -> None:
        """Send a signal to the main process, and do not wait for what comes of it."""
        self._process.signal(number)

    def pause(self) -> None:
        """SIGSTOP, to its children too: it keeps its connections, and its lock, and does nothing."""
        self._process.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self._process.resume()

    def teardown(self) -> None:
        """End it with its children: nobody wants what is left."""
        self._process.kill()
        for orphan in self.children():
            orphan.kill()

    # What `CeleryTestWorker` asks for.

    def version(self) -> str:
        """Celery's."""
        return str(celery_version)

    def log_level(self) -> str:
        """As it is started."""
        return "INFO"

    def worker_name(self) -> str:
        """What stands before the @."""
        return self._name.partition("@")[0]

    def worker_queue(self) -> str:
        """The queues that it consumes, by name; empty: all of them."""
        return self._queues


class GivenBroker:
    """A broker that somebody else runs, as a service: to be used, and not to be ended."""

    log = Path(os.devnull)

    def __init__(self, url: str) -> None:
        self._url = url

    def wait_until_ready(self) -> None:
        """Raise OSError unless it answers."""
        broker_version(self._url)

    def is_running(self) -> bool:
        """As far as anybody here knows."""
        return True

    def start(self) -> None:
        """Refuse."""
        raise AssertionError("a scenario that stops or kills the broker asks for `mortal_broker`")

    stop = kill = start


class BrokerNode(RabbitMQTestBroker):
    """The broker, and the virtual host on it that is this test's."""

    @property
    def url(self) -> str:
        """The AMQP URL."""
        return str(self.container.celeryconfig["host_url"])


class LedgerNode(CeleryTestBackend):
    """Postgres, and the database on it that is this test's: the ledger, and so Celery's result backend."""

    def __init__(self, container: CeleryTestContainer, ledger_url: str) -> None:
        super().__init__(container)
        self.url = ledger_url


class AgentNode(CeleryTestWorker):
    """An agent, started as `celery -A chiffon worker`."""

    container: AgentContainer

    @property
    def agent_id(self) -> str:
        """Its name in the ledger, and Celery's for it."""
        return self.container.name

    def hostname(self) -> str:
        """The same: where Docker has a container's id, this has the stack's."""
        return self.agent_id

    def children(self) -> list[psutil.Process]:
        """The processes of its pool."""
        return self.container.children()

    def log_lines(self, mentioning: str) -> list[dict[str, Any]]:
        """The whole lines in which ``mentioning`` stands, as the JSON that each of them must be."""
        whole, _, _ = self.logs().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines() if mentioning in line]


def broker_config(url: str) -> dict[str, str]:
    """What pytest-celery calls a broker's configuration."""
    return {"url": url, "host_url": url}


def ledger_config(url: str) -> dict[str, str]:
    """What pytest-celery calls a backend's configuration: the ledger as a result backend."""
    backend = f"chiffon+{url}"
    return {"url": backend, "host_url": backend}
