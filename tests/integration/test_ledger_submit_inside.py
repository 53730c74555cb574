"""Submitting inside a transaction of the caller's own: the task exists if and when that transaction commits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg2
import pytest
from psycopg2.extras import DictCursor, NamedTupleCursor, RealDictCursor
from sqlalchemy import Connection, create_engine, text

from chiffon import submit, work
from chiffon.domain.errors import IdempotencyKeyReused, InvalidInput, InvalidParameters, TaskExists, UnknownWorkType
from chiffon.domain.work import WorkTypes, registry
from chiffon.ledger import rings
from chiffon.ledger.accept import accept
from tests.bench import LEASE, Bench
from tests.builders import new_task
from tests.racing import Thread, until

TYPES = WorkTypes()


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work of these tests, beside whatever other tests have registered."""
    mine = WorkTypes()
    work("inside.echo", into=mine)(lambda input: input)  # noqa: A006
    monkeypatch.setattr(registry, "_types", {kind.name: kind for kind in mine})


@contextlib.contextmanager
def bare(url: str) -> Iterator[Any]:
    """A psycopg2 connection as any program has it."""
    with contextlib.closing(psycopg2.connect(url.replace("+psycopg2", ""))) as connection:
        yield connection


@contextlib.contextmanager
def alchemist(url: str) -> Iterator[Connection]:
    """A connection of SQLAlchemy's as any program has it."""
    engine = create_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


KINDS = pytest.mark.parametrize("connected", [bare, alchemist])
Connected = Callable[[str], contextlib.AbstractContextManager[Any]]


def execute(connection: Any, statement: str) -> Any:
    """A statement of the caller's own."""
    if isinstance(connection, Connection):
        return connection.execute(text(statement)).scalar()
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


@KINDS
def test_what_is_rolled_back_was_never_there(bench: Bench, connected: Connected) -> None:
    with connected(bench.url) as connection:
        submit(connection, "inside.echo", {"input": 1}, request_id="r")
        connection.rollback()
        submit(connection, "inside.echo", {"input": 2}, request_id="r")
        connection.commit()
    assert bench.sql("SELECT parameters FROM tasks") == [({"input": 2},)]


@KINDS
def test_what_is_committed_is_there_at_the_commit_and_not_before(bench: Bench, connected: Connected) -> None:
    with connected(bench.url) as connection:
        task_id = submit(connection, "inside.echo", {"input": 1}, priority=5, labels={"a": "b"})
        assert bench.sql("SELECT count(*) FROM tasks") == [(0,)]
        connection.commit()
    row = bench.row(task_id)
    assert (row["status"], row["priority"], row["labels"], row["parameters"]) == (
        "pending",
        5,
        {"a": "b"},
        {"input": 1},
    )


@KINDS
def test_the_callers_own_work_and_the_task_are_one(bench: Bench, connected: Connected) -> None:
    with connected(bench.url) as connection:
        execute(connection, "SELECT set_config('application_name', 'shop', false)")
        task_id = submit(connection, "inside.echo", {"input": 1})
        assert execute(connection, f"SELECT status FROM tasks WHERE task_id = '{task_id}'") == "pending"
        connection.commit()
    assert bench.sql("SELECT count(DISTINCT xmin::text) FROM tasks") == [(1,)]


def test_a_transaction_block_of_sqlalchemys_commits_it(bench: Bench) -> None:
    engine = create_engine(bench.url)
    with engine.begin() as connection:
        kept = submit(connection, "inside.echo", {"input": 1})
    with pytest.raises(ZeroDivisionError), engine.begin() as connection:
        submit(connection, "inside.echo", {"input": 1 / 0})
    engine.dispose()
    assert bench.sql("SELECT task_id FROM tasks") == [(kept,)]


@KINDS
def test_it_is_rung_by_whoever_sweeps_next(bench: Bench, connected: Connected) -> None:
    with connected(bench.url) as connection:
        task_id = submit(connection, "inside.echo", {"input": 1})
        connection.commit()
    with bench.transaction() as cursor:
        assert [ring.task_id for ring in rings.lease(cursor, limit=9, lease=LEASE)] == [task_id]


@KINDS
def test_a_repeated_request_id_gets_the_first_task(bench: Bench, connected: Connected) -> None:
    with connected(bench.url) as connection:
        first = submit(connection, "inside.echo", {"input": 1}, request_id="r")
        assert submit(connection, "inside.echo", {"input": 1}, request_id="r") == first
        connection.commit()
        assert submit(connection, "inside.echo", {"input": 1}, request_id="r") == first
        assert submit(connection, "inside.echo", {"input": 1}, task_id=first) == first


@KINDS
def test_a_refusal_writes_nothing_and_leaves_the_transaction_as_it_was(bench: Bench, connected: Connected) -> None:
    with connected(bench.url) as connection:
        first = submit(connection, "inside.echo", {"input": 1}, request_id="r")
        for wrong, refused in (
            (lambda: submit(connection, "inside.echo", {"input": 2}, request_id="r"), IdempotencyKeyReused),
            (lambda: submit(connection, "inside.echo", {"input": 2}, task_id=first), TaskExists),
            (lambda: submit(connection, "inside.ecko", {"input": 2}), UnknownWorkType),
            (lambda: submit(connection, "inside.echo", {"inptu": 2}), InvalidParameters),
            (lambda: submit(connection, "inside.echo", {"input": "\x00"}), InvalidInput),
        ):
            with pytest.raises(refused):
                wrong()
        connection.commit()
    assert bench.sql("SELECT task_id FROM tasks") == [(first,)]


@KINDS
@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": 0},
        {"priority": 6},
        {"priority": True},
        {"priority": 2.5},
        {"task_id": ""},
        {"task_id": "t" * 256},
        {"task_id": "a\x00b"},
        {"request_id": ""},
        {"request_id": "r" * 201},
        {"request_id": "a\ud800b"},
        {"trace_id": "xyz"},
        {"timeout_seconds": 0},
        {"timeout_seconds": float("nan")},
        {"max_retries": -1},
        {"delay_seconds": -1},
        {"delay_seconds": float("inf")},
        {"delay_seconds": 1e12},
        {"expires_in_seconds": 0},
        {"labels": {"a": "\x00"}},
        {"labels": {"a": 1}},
        {"labels": {"a:b": "found by no list"}},
        {"labels": {"a": "b" * 256}},
        {"labels": {f"a{n}": "" for n in range(33)}},
        {"delay_seconds": 1, "run_at": datetime(2030, 1, 1, tzinfo=UTC)},
    ],
    ids=str,
)
def test_an_option_that_does_not_fit_is_refused_before_anything_is_sent(
    bench: Bench, connected: Connected, wrong: dict[str, Any]
) -> None:
    with connected(bench.url) as connection:
        with pytest.raises(InvalidInput):
            submit(connection, "inside.echo", {"input": 1}, **wrong)
        submit(connection, "inside.echo", {"input": 2})
        connection.commit()
    assert bench.sql("SELECT parameters FROM tasks") == [({"input": 2},)]


@KINDS
@pytest.mark.parametrize("shared", ["task_id", "request_id"])
def test_a_race_that_is_lost_leaves_the_callers_transaction_usable(
    bench: Bench, connected: Connected, shared: str
) -> None:
    ids = {shared: "0190a0e8-7b1c-7cc3-98c4-dc0c0c07398f"}
    mine = new_task(work_type="inside.echo", parameters={"input": 1}, **ids)
    with connected(bench.url) as connection:
        execute(connection, "SELECT count(*) FROM tasks")
        with bench.transaction() as cursor:
            accept(cursor, [mine], lease=LEASE)
            late = Thread(lambda: submit(connection, "inside.echo", {"input": 1}, **ids))
            until(
                lambda: bench.sql(
                    "SELECT true FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
            )
        assert late.answer() == mine.task_id
        after = submit(connection, "inside.echo", {"input": 3})
        connection.commit()
    assert {task_id for (task_id,) in bench.sql("SELECT task_id FROM tasks")} == {mine.task_id, after}


@pytest.mark.parametrize("factory", [RealDictCursor, DictCursor, NamedTupleCursor])
def test_the_callers_own_kind_of_cursor_is_nothing_to_it(bench: Bench, factory: Any) -> None:
    url = bench.url.replace("+psycopg2", "")
    with contextlib.closing(psycopg2.connect(url, cursor_factory=factory)) as connection:
        first = submit(connection, "inside.echo", {"input": 1}, request_id="r")
        assert submit(connection, "inside.echo", {"input": 1}, request_id="r") == first
        connection.commit()
    assert bench.sql("SELECT task_id FROM tasks") == [(first,)]


@KINDS
def test_whatever_goes_wrong_leaves_no_key_without_a_task(bench: Bench, connected: Connected) -> None:
    bench.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
        "CREATE TRIGGER refuse BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with connected(bench.url) as connection:
        execute(connection, "SELECT set_config('application_name', 'shop', false)")
        with pytest.raises(psycopg2.Error):
            submit(connection, "inside.echo", {"input": 1}, request_id="r")
        assert execute(connection, "SELECT current_setting('application_name')") == "shop"
        connection.commit()
    assert bench.sql("SELECT request_id FROM request_keys") == []
