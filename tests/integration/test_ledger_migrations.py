"""Migrations: up from nothing, down to nothing, up again, and what they make is what the code means."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from click.testing import CliRunner
from sqlalchemy import Connection, create_engine, inspect, make_url

from chiffon.agent.life import Identity, Life
from chiffon.cli import CANNOT_BEGIN, FAILED, main
from chiffon.config import validated_database_url
from chiffon.domain.errors import LedgerUnavailable, SchemaBehind
from chiffon.domain.verdicts import Completed
from chiffon.ledger import migrate
from chiffon.ledger.connect import Ledger
from chiffon.ledger.schema import metadata
from tests.bench import Bench
from tests.integration.conftest import NEXT
from tests.racing import until


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection of SQLAlchemy's."""
    engine = create_engine(validated_database_url(url))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def tables(url: str) -> set[str]:
    """What tables there are."""
    with connected(url) as connection:
        return set(inspect(connection).get_table_names())


def shape(url: str) -> dict[str, Any]:
    """Everything that a database has, as Postgres says it."""
    asked = {
        "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default, character_maximum_length "
        "FROM information_schema.columns WHERE table_schema = 'public'",
        "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "constraints": "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace",
    }
    with connected(url) as connection:
        return {name: sorted(map(tuple, connection.exec_driver_sql(sql).all()), key=str) for name, sql in asked.items()}


@pytest.fixture
def url(database_url: str) -> str:
    return validated_database_url(database_url)


def test_an_empty_database_becomes_a_ledger_and_empty_again(url: str) -> None:
    assert migrate.status(url) == (None, migrate.head())
    migrate.upgrade(url)
    assert migrate.status(url) == (migrate.head(), migrate.head())
    assert tables(url) == set(metadata.tables) | {"alembic_version"}
    migrate.downgrade(url)
    assert tables(url) == {"alembic_version"}
    assert migrate.status(url).current is None


def test_what_goes_down_comes_up_the_same(url: str) -> None:
    migrate.upgrade(url)
    before = shape(url)
    migrate.downgrade(url)
    migrate.upgrade(url)
    assert shape(url) == before


def test_every_single_step_can_be_taken_back(url: str) -> None:
    script = ScriptDirectory.from_config(migrate._config())
    for revision in reversed(list(script.walk_revisions())):
        before = tables(url)
        migrate.upgrade(url, revision.revision)
        migrate.downgrade(url, "-1")
        assert tables(url) - {"alembic_version"} == before - {"alembic_version"}
        migrate.upgrade(url, revision.revision)


def test_migrating_again_changes_nothing(url: str) -> None:
    migrate.upgrade(url)
    before = shape(url)
    migrate.upgrade(url)
    assert shape(url) == before


def test_what_the_migrations_make_is_what_the_code_means(ledger_url: str) -> None:
    with connected(ledger_url) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_checks_and_indexes_are_those_of_the_code_too(ledger_url: str, url: str) -> None:
    with connected(url) as connection:
        metadata.create_all(connection)
        connection.commit()
    made, meant = shape(ledger_url), shape(url)
    for name in ("columns", "indexes", "constraints"):
        assert [row for row in made[name] if "alembic_version" not in str(row)] == meant[name]


@pytest.mark.parametrize("command", [["upgrade", "no-such-one"], ["downgrade", "9999"]])
def test_a_revision_that_is_not_there_is_one_message_that_names_those_that_are(url: str, command: list[str]) -> None:
    result = CliRunner(env={"CHIFFON_DATABASE_URL": url}).invoke(main, ["db", *command])
    assert result.exit_code == CANNOT_BEGIN
    assert result.stderr.startswith("chiffon: ")
    assert command[1] in result.stderr
    assert migrate.head() in result.stderr


def test_who_may_make_no_tables_is_told_so_in_one_message(url: str) -> None:
    with connected(url) as connection:
        connection.exec_driver_sql("CREATE ROLE reader LOGIN PASSWORD 'reads'")
        connection.commit()
    try:
        theirs = make_url(url).set(username="reader", password="reads").render_as_string(hide_password=False)
        result = CliRunner(env={"CHIFFON_DATABASE_URL": theirs}).invoke(main, ["db", "upgrade"])
    finally:
        with connected(url) as connection:
            connection.exec_driver_sql("DROP ROLE reader")
            connection.commit()
    assert (result.exit_code, result.stderr.count("\n")) == (FAILED, 1), result.stderr
    assert "permission denied for schema public" in result.stderr


def test_two_who_migrate_at_once_queue(url: str) -> None:
    failures: list[BaseException] = []

    def upgrade() -> None:
        try:
            migrate.upgrade(url)
        except BaseException as error:  # noqa: BLE001  -- a thread's failure is the test's
            failures.append(error)

    both = [threading.Thread(target=upgrade) for _ in range(3)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert failures == []
    assert migrate.status(url).current == migrate.head()


ENDS_TO_LOOK_AT = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_tasks_ends_to_look_at'::regclass"


def test_an_index_that_could_not_be_finished_is_made_anew(ledger_url: str) -> None:
    url = validated_database_url(ledger_url)
    migrate.downgrade(url, "0001")
    with connected(url) as connection:
        connection.exec_driver_sql("CREATE INDEX ix_tasks_ends_to_look_at ON tasks (status)")
        connection.exec_driver_sql(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_tasks_ends_to_look_at'::regclass"
        )
        connection.commit()
    migrate.upgrade(url)
    with connected(url) as connection:
        assert connection.exec_driver_sql(ENDS_TO_LOOK_AT).all() == [(True,)]
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_work_goes_on_while_an_index_is_built(ledger_url: str) -> None:
    url = validated_database_url(ledger_url)
    migrate.downgrade(url, "0001")
    bench = Bench(ledger_url)
    building = threading.Thread(target=migrate.upgrade, args=[url])
    with bench.transaction() as holder:  # an index that is built beside work waits for what is open, as this is
        holder.execute("DELETE FROM tasks")
        building.start()
        until(lambda: bench.sql(BUILDING) == [(1,)])
        bench.settle(bench.claimed(), Completed("{}"))
        assert building.is_alive()
    building.join(30)
    assert migrate.status(url).current == migrate.head()
    bench.close()


BUILDING = (
    "SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'CREATE INDEX CONC%%'"
)


def test_a_ledger_without_tables_is_told_the_command_that_helps(url: str) -> None:
    ledger = Ledger(url)
    with pytest.raises(SchemaBehind, match="chiffon db upgrade"), ledger.transaction() as cursor:
        migrate.require_current(cursor)
    migrate.upgrade(url)
    with ledger.transaction() as cursor:
        migrate.require_current(cursor)
    ledger.close()


def test_new_code_does_not_touch_an_older_schema(ledger_url: str, next_release: Path) -> None:
    url = validated_database_url(ledger_url)
    ledger, before = Ledger(url), migrate.head()
    with pytest.MonkeyPatch.context() as release:
        release.setattr(migrate, "_SCRIPTS", next_release)
        said = rf"is {before}, .* needs {NEXT}: run `chiffon db upgrade`"
        with pytest.raises(SchemaBehind, match=said), ledger.transaction() as cursor:
            migrate.require_current(cursor)
        assert migrate.status(url).is_behind
        migrate.upgrade(url)
        with ledger.transaction() as cursor:
            migrate.require_current(cursor)
    ledger.close()


def test_old_code_goes_on_against_a_newer_schema(ledger_url: str, next_release: Path) -> None:
    url = validated_database_url(ledger_url)
    who = Identity(agent_id="old@here", slots=1, queues=("work_queue",), work_types=("echo",), version="0")
    life = Life(url, who)
    life.begin()
    with pytest.MonkeyPatch.context() as release:
        release.setattr(migrate, "_SCRIPTS", next_release)
        migrate.upgrade(url)
    life.drop()
    assert until(lambda: begun(life)) == {"began again": set()}
    assert not migrate.status(url).is_behind
    life.drop()


def test_a_release_that_is_rolled_back_leaves_the_newer_schema_as_it_is(ledger_url: str, next_release: Path) -> None:
    url = validated_database_url(ledger_url)
    with pytest.MonkeyPatch.context() as release:
        release.setattr(migrate, "_SCRIPTS", next_release)
        migrate.upgrade(url)
    result = CliRunner(env={"CHIFFON_DATABASE_URL": url}).invoke(main, ["db", "upgrade"])
    assert result.exit_code == 0, result.stderr
    assert migrate.status(url).current == NEXT


@pytest.mark.parametrize("revision", ["4f2c9a1b7d3e", "0001", "0003"])
def test_a_database_of_another_program_is_named_as_one_and_left_as_it_is(url: str, revision: str) -> None:
    with connected(url) as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{revision}')")
        connection.exec_driver_sql("CREATE TABLE tasks (id int)")
        connection.commit()
    told = f"belongs to another program, whose schema is at {revision}"
    for step in (migrate.upgrade, migrate.downgrade, migrate.status, migrate.make_if_empty):
        with pytest.raises(migrate.NoSuchRevision, match=told):
            step(url)
    for command in ("upgrade", "current"):
        result = CliRunner(env={"CHIFFON_DATABASE_URL": url}).invoke(main, ["db", command])
        assert result.exit_code != 0
        assert told in result.stderr
    ledger = Ledger(url)
    with pytest.raises(SchemaBehind, match=told), ledger.transaction() as cursor:
        migrate.require_current(cursor)
    ledger.close()
    assert tables(url) == {"alembic_version", "tasks"}


def begun(life: Life) -> dict[str, set[tuple[str, int]]]:
    """What a life that begins again still has; nothing while its old session still holds the lock."""
    try:
        return {"began again": life.begin()}
    except LedgerUnavailable:
        return {}


def test_a_statement_on_a_ledger_without_tables_says_what_to_do(url: str) -> None:
    ledger = Ledger(url)
    with pytest.raises(SchemaBehind, match="chiffon db upgrade"), ledger.transaction() as cursor:
        cursor.execute("SELECT * FROM tasks")
    ledger.close()


def test_a_database_that_is_not_there_is_unavailable() -> None:
    nowhere = "postgresql+psycopg2://127.0.0.1:1/none"
    for step in (migrate.upgrade, migrate.downgrade, migrate.status):
        with pytest.raises(LedgerUnavailable):
            step(nowhere)
