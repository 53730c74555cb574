"""Each command and health check of `docker-compose.yml`, as a process of this machine instead of a container.

The environment is the one that Compose would give it, but for where the broker, the ledger and its own port are.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import psycopg2
import pytest

from chiffon.config import Settings
from chiffon.devstack import ports
from chiffon.devstack.postgres import PrivatePostgres, find_programs
from chiffon.devstack.process import Process, inherited_environment
from chiffon.devstack.rabbitmq import PrivateRabbitMQ, find_scripts
from chiffon.ledger import migrate
from tests import compose
from tests.compose import REPOSITORY

SERVICES = compose.load()["services"]
PROGRAMS = Path(sys.executable).parent
IN_THE_IMAGE = ("celeryconfig.py", "gunicorn.conf.py", "workers", "wsgi.py")
"""What the Dockerfile puts into the folder that the commands are run in; tests/unit/test_dockerfile.py reads it."""


GIVEN = {
    "RABBITMQ_PASSWORD": "of-rabbitmq",
    "POSTGRES_PASSWORD": "of-postgres",
    "FLOWER_PASSWORD": "of-flower",
    "CHIFFON_API_KEYS": "of-the-api",
    "WORKER_CONCURRENCY": "1",
}
BROKER = "amqp://chiffon:of-rabbitmq@rabbitmq:5672//"
LEDGER = "postgresql://chiffon:of-postgres@postgres:5432/chiffon"


@dataclass(frozen=True)
class Container:
    """A service of the file. ``here``: what is put in the place of what only containers have."""

    name: str
    folder: Path
    here: dict[str, str]

    def process(self) -> Process:
        """Its command, to be started."""
        return Process(
            self.name,
            self._command(),
            log=self.folder / f"{self.name}.log",
            environment=self._environment(),
            folder=self.folder,
            ready=self.is_healthy,
        )

    def run(self) -> subprocess.CompletedProcess[str]:
        """Its command, run to its end."""
        return self._run(self._command(), timeout=60)

    def is_healthy(self) -> bool:
        """What its health check says now."""
        check = SERVICES[self.name]["healthcheck"]
        assert check["test"][0] == "CMD"
        return (
            self._run(self._put(check["test"][1:]), timeout=float(check["timeout"].removesuffix("s"))).returncode == 0
        )

    def without(self, service: str) -> Container:
        """The same, for which a broker or a ledger is nowhere."""
        return replace(self, here={**self.here, service: f"{service.partition(':')[0]}://{ports.LOOPBACK}:1/nothing"})

    def _run(self, command: list[str], timeout: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=inherited_environment() | self._environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def _command(self) -> list[str]:
        return self._put(compose.resolved(SERVICES[self.name]["command"], GIVEN))

    def _environment(self) -> dict[str, str]:
        found = compose.environment(SERVICES[self.name], GIVEN)
        return dict(zip(found, self._put(list(found.values())), strict=True)) | {
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"
        }

    def _put(self, words: list[str]) -> list[str]:
        for there, here in self.here.items():
            words = [word.replace(there, here) for word in words]
        return words


@pytest.fixture
def containers(broker_url: str, database_url: str, tmp_path: Path) -> dict[str, Container]:
    """Our own services, by name; the ledger has no tables yet."""
    for name in IN_THE_IMAGE:
        (tmp_path / name).symlink_to(REPOSITORY / name)
    here = {
        BROKER: broker_url,
        LEDGER: database_url,
        "0.0.0.0": ports.LOOPBACK,  # noqa: S104  -- the address that is replaced
        "8000": str(ports.free_port()),
        "5555": str(ports.free_port()),
    }
    return {name: Container(name, tmp_path, here) for name in ("migrate", "api", "worker", "flower")}


@pytest.fixture
def migrated(containers: dict[str, Container], database_url: str) -> str:
    """The URL of the ledger, brought up to date by the service that does this."""
    done = containers["migrate"].run()
    assert done.returncode == 0, done.stderr
    return database_url


@pytest.fixture
def up(containers: dict[str, Container], migrated: str, request: pytest.FixtureRequest) -> Iterator[Process]:
    """The service that a test is about, healthy."""
    process = containers[request.param].process()
    process.start()
    yield process
    process.resume()
    process.kill()


def test_the_migration_brings_an_empty_ledger_up_to_date_and_ends(migrated: str) -> None:
    found = migrate.status(Settings(database_url=migrated).direct_url)
    assert found.current == found.head


@pytest.mark.parametrize("up", ["api", "worker", "flower"], indirect=True)
def test_a_service_is_healthy_while_it_works_and_neither_when_it_hangs_nor_when_it_is_gone(
    up: Process, containers: dict[str, Container]
) -> None:
    container = containers[up.name]
    up.pause()
    assert not container.is_healthy()
    up.resume()
    assert container.is_healthy()
    up.kill()
    assert not container.is_healthy()


@pytest.mark.parametrize("up", ["worker"], indirect=True)
def test_an_agent_that_answers_and_has_long_lost_its_heartbeat_is_not_healthy(
    up: Process, containers: dict[str, Container], migrated: str
) -> None:
    with psycopg2.connect(migrated) as session, session.cursor() as cursor:
        cursor.execute("UPDATE agents SET last_heartbeat_at = last_heartbeat_at - interval '1 hour'")
    session.close()
    assert not containers["worker"].is_healthy()


@pytest.mark.parametrize("up", ["worker"], indirect=True)
def test_no_agent_is_restarted_because_the_broker_or_the_ledger_is_away(
    up: Process, containers: dict[str, Container]
) -> None:
    for service in (BROKER, LEDGER):
        assert containers["worker"].without(service).is_healthy()


def test_the_health_check_of_the_ledger_tells_whether_it_takes_connections(postgres: PrivatePostgres) -> None:
    port = str(urlsplit(postgres.url).port)

    def is_healthy() -> bool:
        program, *arguments = SERVICES["postgres"]["healthcheck"]["test"][1:]
        command = [find_programs() / program, *arguments]
        return subprocess.run(command, env={"PGPORT": port}, capture_output=True, check=False).returncode == 0

    assert is_healthy()
    postgres.stop()
    assert not is_healthy()


def test_the_health_check_of_the_broker_tells_whether_it_takes_connections(rabbitmq: PrivateRabbitMQ) -> None:
    def is_healthy() -> bool:
        program, *arguments = SERVICES["rabbitmq"]["healthcheck"]["test"][1:]
        command = [find_scripts() / program, *arguments]
        environment = {**os.environ, **rabbitmq._environment}
        return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0

    assert is_healthy()
    rabbitmq.kill()
    assert not is_healthy()
