"""What callers hear when the ledger is away, goes away, or is not the one this code needs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from chiffon.agent import health
from chiffon.api.parts import Parts
from chiffon.config import Settings
from chiffon.devstack.postgres import PrivatePostgres
from chiffon.domain.errors import LedgerUnavailable
from chiffon.ledger.connect import Ledger
from chiffon.ledger.failures import CommitUnknown
from chiffon.ledger.migrate import head
from tests.api import DocumentedClient, api, problem
from tests.bench import Bench

ECHO = {"work_type": "echo", "parameters": {"input": "hello"}}


class Forgetful(Ledger):
    """A ledger whose answers to COMMIT get lost, after it has happened or before, and which is then away."""

    def __init__(self, url: str, *, happens: bool, is_back: bool) -> None:
        super().__init__(url)
        self._happens = happens
        self._is_back = is_back
        self._has_forgotten = False

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """As its parent's, but for the first."""
        if self._has_forgotten and not self._is_back:
            raise LedgerUnavailable("away")
        with super().transaction() as cursor:
            yield cursor
            if not self._has_forgotten and not self._happens:
                self._has_forgotten = True
                raise CommitUnknown("rolled back")
        if not self._has_forgotten:
            self._has_forgotten = True
            raise CommitUnknown("committed")

    @contextmanager
    def statements(self) -> Iterator[Any]:
        """As its parent's, but for the first."""
        if self._has_forgotten:
            if not self._is_back:
                raise LedgerUnavailable("away")
            with super().statements() as cursor:
                yield cursor
            return
        self._has_forgotten = True
        if not self._happens:
            raise CommitUnknown("not heard")
        with super().statements() as cursor:
            yield cursor
        raise CommitUnknown("committed")


def client_of(ledger_url: str, **behaviour: bool) -> DocumentedClient:
    client = api(database_url=ledger_url)
    made: Parts = client.application.extensions["chiffon"]
    made.schema.check()
    client.application.extensions["chiffon"] = replace(
        made, any_ledger=Forgetful(made.settings.database_url, **behaviour)
    )
    return client


@pytest.mark.parametrize("happens", [True, False])
def test_a_lost_answer_to_a_commit_is_found_out(ledger_url: str, happens: bool) -> None:
    client = client_of(ledger_url, happens=happens, is_back=True)
    response = client.post("/dispatch", json={**ECHO, "request_id": "once"})
    assert response.status_code == 202
    listed = client.get("/tasks").json
    assert listed is not None
    assert [task["task_id"] for task in listed["items"]] == [response.json["task_id"]]  # type: ignore[index]


@pytest.mark.parametrize("happens", [True, False])
def test_a_batch_whose_commit_got_lost_tells_new_from_duplicate(ledger_url: str, happens: bool) -> None:
    api(database_url=ledger_url).post("/dispatch", json={**ECHO, "request_id": "before"})
    client = client_of(ledger_url, happens=happens, is_back=True)
    tasks = [{**ECHO, "request_id": "before"}, {**ECHO, "request_id": "new"}]
    answer = client.post("/dispatch/batch", json={"tasks": tasks}).json
    assert answer is not None
    assert [item["code"] for item in answer["items"]] == [200, 202]


@pytest.mark.parametrize("happens", [True, False])
def test_a_task_that_was_there_before_a_commit_got_lost_is_a_duplicate(ledger_url: str, happens: bool) -> None:
    ask = {**ECHO, "task_id": "0199ed2a-0000-7000-8000-000000000001", "request_id": "once"}
    assert api(database_url=ledger_url).post("/dispatch", json=ask).status_code == 202
    again = client_of(ledger_url, happens=happens, is_back=True).post("/dispatch", json=ask)
    assert again.json is not None
    assert (again.status_code, again.json["duplicate"]) == (200, True)


def test_an_outcome_that_cannot_be_known_is_503_with_both_ids(ledger_url: str) -> None:
    client = client_of(ledger_url, happens=True, is_back=False)
    response = client.post("/dispatch", json=ECHO)
    assert problem(response) == (503, "outcome-unknown", set())
    said = response.json
    assert said is not None
    assert said["outcome"] == "unknown"
    assert int(response.headers["Retry-After"]) > 0
    again = api(database_url=ledger_url).post("/dispatch", json={**ECHO, "request_id": said["request_id"]})
    assert again.json is not None
    assert (again.status_code, again.json["task_id"]) == (200, said["task_id"])


def test_an_unknown_batch_is_503_with_everybodys_ids(ledger_url: str) -> None:
    client = client_of(ledger_url, happens=True, is_back=False)
    said = client.post("/dispatch/batch", json={"tasks": [ECHO, ECHO]}).json
    assert said is not None
    assert said["outcome"] == "unknown"
    assert len({item["request_id"] for item in said["items"]}) == 2


@pytest.fixture
def read_only(bench: Bench) -> Iterator[str]:
    """A ledger that takes no writes, as a standby does: its URL."""
    ((name,),) = bench.sql("SELECT current_database()")
    bench.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    yield bench.url
    with bench.transaction() as cursor:
        cursor.execute(f"SET TRANSACTION READ WRITE; ALTER DATABASE {name} RESET default_transaction_read_only")


def test_a_ledger_that_takes_no_writes_is_known_not_to_have_accepted(read_only: str) -> None:
    client = api(database_url=read_only)
    for path, body in (("/dispatch", ECHO), ("/dispatch/batch", {"tasks": [ECHO, ECHO]})):
        response = client.post(path, json=body)
        assert problem(response) == (503, "ledger-read-only", set())
        assert "outcome" not in response.json  # type: ignore[operator]
        assert int(response.headers["Retry-After"]) > 0
    ready = client.get("/health/ready")
    assert problem(ready) == (503, "ledger-read-only", set())
    assert "standby" in ready.json["detail"]  # type: ignore[index]
    assert client.get("/tasks").status_code == 200


def test_of_a_ledger_that_takes_no_writes_no_agent_is_blamed(read_only: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "app", SimpleNamespace(settings=Settings(database_url=read_only)))
    sign = health._heartbeat("agent@host")
    assert (sign.lives, "takes no writes" in sign.said) == (None, True)


@pytest.mark.parametrize("path", ["/tasks", "/tasks/a", "/work-types", "/agents", "/queues", "/health/ready"])
def test_a_database_without_our_tables_is_503_and_names_the_command(database_url: str, path: str) -> None:
    response = api(database_url=database_url).get(path)
    assert problem(response) == (503, "schema-behind", set())
    assert "chiffon db upgrade" in response.json["detail"]  # type: ignore[index]


def test_work_is_not_taken_in_under_a_schema_that_is_behind(database_url: str) -> None:
    for path, body in (("/dispatch", ECHO), ("/dispatch/batch", {"tasks": [ECHO]})):
        assert problem(api(database_url=database_url).post(path, json=body)) == (503, "schema-behind", set())


def test_a_schema_that_lost_its_revision_is_503_until_it_has_one(ledger_url: str) -> None:
    client = api(database_url=ledger_url)
    made: Parts = client.application.extensions["chiffon"]
    ledger = made.any_ledger
    with ledger.transaction() as cursor:
        cursor.execute("DELETE FROM alembic_version RETURNING 1")
    assert problem(client.get("/tasks")) == (503, "schema-behind", set())
    with ledger.transaction() as cursor:
        cursor.execute("INSERT INTO alembic_version VALUES (%(head)s)", {"head": head()})
    assert client.get("/tasks").status_code == 200
    assert client.get("/health/ready").status_code == 200


def test_an_api_that_starts_after_the_migration_of_a_newer_release_works(ledger_url: str) -> None:
    client = api(database_url=ledger_url)
    made: Parts = client.application.extensions["chiffon"]
    with made.any_ledger.transaction() as cursor:
        cursor.execute("UPDATE alembic_version SET version_num = 'newer'")
    assert client.get("/health/ready").status_code == 200
    assert client.post("/dispatch", json=ECHO).status_code == 202


def test_a_ledger_that_dies_is_503_at_once_and_200_when_it_is_back(ledger_url: str, postgres: PrivatePostgres) -> None:
    client = api(database_url=ledger_url)
    assert client.get("/tasks").status_code == 200
    postgres.kill()
    began = time.monotonic()
    assert problem(client.get("/tasks")) == (503, "ledger-unavailable", set())
    assert problem(client.post("/dispatch", json=ECHO)) == (503, "ledger-unavailable", set())
    assert problem(client.get("/health/ready")) == (503, "ledger-unavailable", set())
    assert time.monotonic() - began < 2
    postgres.start()
    assert client.get("/tasks").status_code == 200
    assert client.post("/dispatch", json=ECHO).status_code == 202
