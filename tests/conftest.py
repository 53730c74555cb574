"""Fixtures that lend real services, and a session that cannot pass in CI by skipping."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

import pytest

from chiffon.devstack.errors import MissingProgram
from chiffon.devstack.postgres import PrivatePostgres
from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.services import POOL_VARIABLE, Services

SERVICES = pytest.StashKey[Services]()
T = TypeVar("T")
NEED_A_BROKER = {"broker_url", "rabbitmq", "celery_broker"}


def in_ci() -> bool:
    """Tell whether this is a build server, where a missing part is a failure."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def pytest_configure(config: pytest.Config) -> None:
    """Forget the developer's own settings: no test may reach for a real ledger."""
    for name in list(os.environ):
        if name.startswith("CHIFFON_") and not name.startswith("CHIFFON_TEST_"):
            del os.environ[name]
    # Who starts the tests in the background has these ignored, and every program that they start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.stash[SERVICES] = Services()


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what was started."""
    config.stash[SERVICES].close()


def pytest_report_collectionfinish(config: pytest.Config, items: Sequence[pytest.Item]) -> list[str]:
    """Name the broker, by its own handshake, and the pool, where a test uses them."""
    if config.option.collectonly or not any(
        NEED_A_BROKER.intersection(getattr(item, "fixturenames", ())) for item in items
    ):
        return []
    try:
        broker = config.stash[SERVICES].broker_in_words()
    except MissingProgram as error:
        broker = str(error)
    return [f"broker: {broker}", f"pool: {chosen_pool()}"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one."""
    report = yield
    if in_ci() and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"Skipped, which CI does not allow: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In CI a module that skips itself is a failure."""
    report = yield
    if in_ci() and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"Skipped, which CI does not allow: {report.longrepr}"
    return report


def chosen_pool() -> str:
    """Return the pool that agents are started with."""
    return os.environ.get(POOL_VARIABLE, "prefork")


@pytest.fixture(scope="session")
def pool() -> str:
    """The pool that agents are started with: `prefork` or `threads`."""
    return chosen_pool()


@pytest.fixture(scope="session")
def services(pytestconfig: pytest.Config) -> Services:
    """The session's services; ask for one of the fixtures below instead where it will do."""
    running = pytestconfig.stash[SERVICES]
    assert running.guardian  # from here on nothing that a test starts can outlive the session
    return running


@pytest.fixture
def rabbitmq(services: Services) -> Iterator[PrivateRabbitMQ]:
    """The private broker, to kill, pause or wipe: it is up again after the test."""
    node = started(lambda: services.rabbitmq)
    yield node
    node.resume()
    node.start()


@pytest.fixture
def broker_url(services: Services) -> Iterator[str]:
    """The AMQP URL of an empty virtual host, gone after the test."""
    if services.given_broker is None:
        started(lambda: services.rabbitmq)
    with services.fresh_broker() as url:
        yield url


@pytest.fixture
def postgres(services: Services) -> Iterator[PrivatePostgres]:
    """The private Postgres server, to kill or pause: it is up again after the test."""
    server = started(lambda: services.postgres)
    yield server
    server.resume()
    server.start()


@pytest.fixture
def database_url(postgres: PrivatePostgres, services: Services) -> Iterator[str]:
    """The URL of an empty database, gone after the test."""
    with services.fresh_database("template1") as url:
        yield url


@pytest.fixture
def ledger_url(postgres: PrivatePostgres, services: Services) -> Iterator[str]:
    """The URL of a database with the current schema and no rows, gone after the test."""
    with services.fresh_database(services.migrated) as url:
        yield url


def started(service: Callable[[], T]) -> T:
    """Return the service, or skip the test where its program is not installed."""
    try:
        return service()
    except MissingProgram as error:
        pytest.skip(f"{error}; `make up` installs it")
