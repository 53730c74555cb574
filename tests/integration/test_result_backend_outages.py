"""The result backend when Postgres goes away, when the process forks, and when the schema is not what it should be."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import BackendGetMetaError, BackendStoreError
from celery.exceptions import TimeoutError as CeleryTimeout

from chiffon.config import validated_database_url
from chiffon.devstack.postgres import PrivatePostgres
from chiffon.devstack.process import Process
from chiffon.domain.errors import LedgerUnavailable, SchemaBehind
from chiffon.ledger import migrate
from tests import plain_celery as plain
from tests.e2e.waiting import eventually
from tests.plain_worker import plain_client, plain_worker

PATIENCE = 40.0


@pytest.fixture
def client(broker_url: str, database_url: str) -> Iterator[Celery]:
    with plain_client(broker_url, f"chiffon+{database_url}") as client:
        yield client


@pytest.fixture
def worker(client: Celery, broker_url: str, database_url: str, tmp_path: Path) -> Iterator[Process]:
    with plain_worker(tmp_path, broker_url, f"chiffon+{database_url}") as worker:
        yield worker


def test_a_restart_of_postgres_wakes_who_waits(
    client: Celery, worker: Process, postgres: PrivatePostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client.backend.listener, "reread", 3600.0)
    result = plain.half_way.delay(str(tmp_path / "go"))
    eventually("the work has begun", lambda: result.state == "PROGRESS")
    found: list[Any] = []
    waiting = threading.Thread(target=lambda: found.append(result.get(timeout=PATIENCE, interval=3600)))
    waiting.start()
    eventually("it listens", lambda: client.backend.listener.session is not None)
    postgres.restart()
    (tmp_path / "go").touch()
    waiting.join(PATIENCE)
    assert found == ["whole"]


def test_a_result_is_stored_when_postgres_is_back(
    client: Celery, worker: Process, postgres: PrivatePostgres, tmp_path: Path
) -> None:
    result = plain.half_way.delay(str(tmp_path / "go"))
    eventually("the work has begun", lambda: result.state == "PROGRESS")
    postgres.kill()
    (tmp_path / "go").touch()
    eventually("the worker tries in vain", lambda: "trying again" in worker.tail())
    postgres.start()
    assert result.get(timeout=PATIENCE) == "whole"
    assert plain.add.delay(1, 1).get(timeout=PATIENCE) == 2


def test_an_outage_that_lasts_is_an_error_in_the_end(
    client: Celery, postgres: PrivatePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chiffon.agent.backend.PATIENCE", 0.3)
    assert client.AsyncResult("any").state == "PENDING"
    postgres.stop()
    try:
        with pytest.raises(CeleryTimeout):
            client.AsyncResult("any").get(timeout=0.1)
        with pytest.raises(BackendGetMetaError) as caught:
            _ = client.AsyncResult("any").state
        with pytest.raises(BackendStoreError):
            client.backend.store_result("any", 1, "SUCCESS")
    finally:
        postgres.start()
    assert isinstance(caught.value.__cause__, LedgerUnavailable)


def test_processes_that_come_at_once_make_the_tables_once(database_url: str) -> None:
    url = validated_database_url(database_url)
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=migrate.make_if_empty, args=(url,)) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    assert migrate.status(url).current == migrate.head()


def test_a_schema_that_is_behind_is_refused_and_the_command_named(
    client: Celery, ledger_url: str, next_release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_SCRIPTS", next_release)
    behind = Celery("behind", backend=f"chiffon+{ledger_url}", set_as_current=False)
    with pytest.raises(SchemaBehind, match="chiffon db upgrade"):
        _ = behind.AsyncResult("any").state


def test_a_forked_child_has_sessions_of_its_own(client: Celery) -> None:
    backend = client.backend
    backend.store_result("before", 1, "SUCCESS")
    done = threading.Event()
    waiter = threading.Thread(target=lambda: backend.wait_for("after", timeout=PATIENCE, interval=3600) and done.set())
    waiter.start()
    eventually("the parent listens", lambda: backend.listener.session is not None)
    session = backend.listener.session

    def in_child() -> None:
        assert backend.wait_for("before", timeout=5)["result"] == 1
        backend.store_result("by the child", 2, "SUCCESS")
        assert backend.wait_for("by the child", timeout=5)["result"] == 2
        assert backend.listener.session is not session
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=in_child)
    child.start()
    child.join(PATIENCE)
    assert child.exitcode == 0
    assert not session.closed
    backend.store_result("after", 3, "SUCCESS")
    waiter.join(PATIENCE)
    assert done.is_set()
    assert backend.listener.session is session
