"""The scenarios' fixtures: pytest-celery's own by name (`celery_broker`, `celery_worker`, ...), on processes.

A scenario that kills the broker asks for `mortal_broker`, one that wipes it for `perishable_broker`: then everything of
it uses the private one, also when the environment names another for the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from pytest_celery import CeleryBackendCluster, CeleryBrokerCluster, CeleryWorkerCluster

from chiffon.devstack.postgres import PrivatePostgres
from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.chaos.relay import Relays
from tests.e2e.agents import Agents
from tests.e2e.api_process import Apis
from tests.e2e.diary import Diary
from tests.e2e.flower_process import Flower, start_flower
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.nodes import (
    AgentNode,
    BrokerNode,
    GivenBroker,
    LedgerNode,
    ServiceContainer,
    broker_config,
    ledger_config,
)
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.stack import StackUnderTest
from tests.services import Services


@pytest.fixture
def mortal_broker(rabbitmq: PrivateRabbitMQ) -> Iterator[BrokerNode]:
    """The private broker as a node, to kill and restart."""
    url = rabbitmq.create_vhost()
    yield BrokerNode(ServiceContainer("rabbitmq", rabbitmq, broker_config(url)))
    rabbitmq.resume()
    rabbitmq.start()
    rabbitmq.drop_vhost(url)


@pytest.fixture
def perishable_broker(rabbitmq: PrivateRabbitMQ) -> Iterator[BrokerNode]:
    """The private broker as a node, to wipe: its default virtual host is the one that comes back by itself."""
    yield BrokerNode(ServiceContainer("rabbitmq", rabbitmq, broker_config(rabbitmq.url)))
    rabbitmq.resume()
    rabbitmq.wipe()


@pytest.fixture
def celery_broker(request: pytest.FixtureRequest, services: Services) -> BrokerNode:
    """The broker as a node, with an empty virtual host."""
    for asked_for in {"mortal_broker", "perishable_broker"}.intersection(request.fixturenames):
        mortal: BrokerNode = request.getfixturevalue(asked_for)
        return mortal
    url: str = request.getfixturevalue("broker_url")
    service = services.rabbitmq if services.given_broker is None else GivenBroker(url)
    return BrokerNode(ServiceContainer("rabbitmq", service, broker_config(url)))


@pytest.fixture
def celery_broker_cluster(celery_broker: BrokerNode) -> CeleryBrokerCluster:
    """The one broker."""
    return CeleryBrokerCluster(celery_broker)


@pytest.fixture
def celery_backend(postgres: PrivatePostgres, ledger_url: str) -> LedgerNode:
    """Postgres as a node, with a ledger that has no rows."""
    return LedgerNode(ServiceContainer("postgres", postgres, ledger_config(ledger_url)), ledger_url)


@pytest.fixture
def celery_backend_cluster(celery_backend: LedgerNode) -> CeleryBackendCluster:
    """The one ledger."""
    return CeleryBackendCluster(celery_backend)


@pytest.fixture
def stack(celery_broker: BrokerNode, celery_backend: LedgerNode, tmp_path: Path) -> Iterator[StackUnderTest]:
    """The settings of everything that the scenario starts; whatever still runs afterwards is ended."""
    found = StackUnderTest(celery_broker.url, celery_backend.url, tmp_path)
    yield found
    found.end()


@pytest.fixture
def agents(stack: StackUnderTest, pool: str) -> Iterator[Agents]:
    """Starts agents, for scenarios that start them when they like."""
    found = Agents(stack, pool)
    yield found
    found.teardown()


@pytest.fixture
def celery_worker(agents: Agents) -> AgentNode:
    """An agent that is up, and does one task at a time."""
    return agents.start()


@pytest.fixture
def celery_worker_cluster(celery_worker: AgentNode) -> CeleryWorkerCluster:
    """The one agent; a scenario that wants more starts them beside it."""
    return CeleryWorkerCluster(celery_worker)


@pytest.fixture
def celery_setup_app(celery_setup_app: Celery) -> Iterator[Celery]:
    """pytest-celery's own client; whoever waits in this process for its results waits no longer than the test."""
    yield celery_setup_app
    celery_setup_app.backend.listener.linger = 0


@pytest.fixture
def apis(stack: StackUnderTest) -> Apis:
    """Starts the API, for scenarios that give it settings or stop it."""
    return Apis(stack)


@pytest.fixture
def api(apis: Apis) -> HttpClient:
    """The API, up, by HTTP."""
    return apis.start()


@pytest.fixture
def flower(stack: StackUnderTest) -> Flower:
    """Flower, up, behind its password."""
    return start_flower(stack)


@pytest.fixture
def amqp_client(celery_broker: BrokerNode) -> RawAmqp:
    """A bare AMQP client of the broker."""
    return RawAmqp(celery_broker.url)


@pytest.fixture
def ledger(celery_backend: LedgerNode) -> LedgerReader:
    """What the ledger says by SQL."""
    return LedgerReader(celery_backend.url)


@pytest.fixture
def relays() -> Iterator[Relays]:
    """Makes relays, to stand between a program and a service."""
    found = Relays()
    yield found
    found.close()


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    """The file that work writes into."""
    return Diary(tmp_path / "diary")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the ends of the processes' logs with a scenario that failed."""
    report = yield
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and folder is not None and "stack" in getattr(item, "fixturenames", ()):
        for log in sorted(folder.glob("*.log")):
            report.sections.append((log.name, "\n".join(log.read_text(errors="replace").splitlines()[-20:])))
    return report
