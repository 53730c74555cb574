"""Schema migrations: up, down, and where a ledger stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from psycopg2.errorcodes import INSUFFICIENT_PRIVILEGE
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from chiffon.domain.errors import ChiffonError, LedgerUnavailable, SchemaBehind
from chiffon.ledger.connect import Cursor

log = structlog.get_logger(__name__)

_LOCK = 0x6368_6966
"""The advisory lock that two migrations at once queue at."""

_ASK_EVERY = 0.1
"""Seconds between two looks whether it is free."""

_SCRIPTS = Path(__file__).parent / "migrations"

_IS_OURS = " AND ".join(f"to_regclass('{table}') IS NOT NULL" for table in ("tasks", "executions", "request_keys"))
"""Whether a ledger's tables are there. Others number their revisions, too, and keep them where Alembic does."""


class NoSuchRevision(ChiffonError):
    """There is no way from where the database stands to the revision that was asked for."""


class NotPermitted(ChiffonError):
    """Postgres does not let this user change the schema."""


class Status(NamedTuple):
    """A ledger's revision and the one this code needs; ``current`` is None for an empty database."""

    current: str | None
    head: str

    @property
    def is_behind(self) -> bool:
        """Whether the ledger is to be upgraded before this code can use it."""
        return self.current is None or (self.current != self.head and not self.is_ahead)

    @property
    def is_ahead(self) -> bool:
        """Whether a newer release has upgraded it: to a revision that this code does not have."""
        return self.current is not None and self.current not in _revisions(_SCRIPTS)


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the ledger at ``url`` to ``revision``. Raises LedgerUnavailable, NoSuchRevision, NotPermitted.

    One that a newer release has brought further is left as it is: a release that is rolled back goes on against it.
    """

    def step(config: Config) -> None:
        if revision == "head" and (found := status(url)).is_ahead:
            _say_ahead(found)
        else:
            command.upgrade(config, revision)

    _run(url, step)


def make_if_empty(url: str) -> None:
    """Give a database that has no schema the newest, and leave every other as it is. Raises as `status` does.

    Two at once are no harm: the second waits, and finds the work done.
    """
    if status(url).current is None:
        upgrade(url)


def downgrade(url: str, revision: str = "base") -> None:
    """Take the ledger at ``url`` back to ``revision``, dropping what came later. Raises as `upgrade` does."""
    _run(url, lambda config: command.downgrade(config, revision))


def status(url: str) -> Status:
    """Where the ledger at ``url`` stands. Raises LedgerUnavailable; NoSuchRevision for another program's database."""
    with _connected(url) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        is_ours = connection.execute(text(f"SELECT {_IS_OURS}")).scalar_one()
    if current is not None and not is_ours:
        raise NoSuchRevision(_another_programs(current))
    return Status(current, head())


def require_current(cursor: Cursor) -> None:
    """Raise SchemaBehind, with the command that helps, unless the ledger has the revision that this code needs.

    A newer one will do: migrations come before the code that needs them, and take nothing from the release before.
    """
    cursor.execute(f"SELECT to_regclass('alembic_version') IS NOT NULL, {_IS_OURS}")
    has_revision, is_ours = cursor.fetchone()
    if not has_revision:
        raise SchemaBehind("the ledger has no tables yet: run `chiffon db upgrade`")
    cursor.execute("SELECT version_num FROM alembic_version")
    row = cursor.fetchone()
    if row and not is_ours:
        raise SchemaBehind(_another_programs(row[0]))
    found = Status(row[0] if row else None, head())
    if found.is_behind:
        raise SchemaBehind(
            f"the ledger's schema is {found.current or 'none'}, and this code needs {found.head}: "
            "run `chiffon db upgrade`"
        )
    if found.is_ahead:
        _say_ahead(found)


def head() -> str:
    """The newest revision that this code has."""
    return _revisions(_SCRIPTS)[0]


def _another_programs(revision: str) -> str:
    return (
        f"the database belongs to another program, whose schema is at {revision}: "
        "give the ledger one of its own, and name it in CHIFFON_DATABASE_URL"
    )


@cache
def _revisions(scripts: Path) -> tuple[str, ...]:
    """Every revision that this code has, the newest first."""
    found = tuple(script.revision for script in ScriptDirectory(scripts).walk_revisions())
    if not found:
        raise SchemaBehind("this installation has no migrations: reinstall chiffon")
    return found


@cache
def _say_ahead(status: Status) -> None:
    """Log it, once a process: every session looks."""
    log.warning("schema_is_newer", found=status.current, needed=status.head)


def _run(url: str, step: Callable[[Config], None]) -> None:
    config = _config()
    status(url)  # nothing of another program's is touched
    with _alone(url), _connected(url) as connection:
        config.attributes["connection"] = connection
        try:
            step(config)
        except CommandError as error:
            known = ", ".join(reversed(_revisions(_SCRIPTS)))
            raise NoSuchRevision(f"{error}; the revisions are base, {known}, and head, the last") from None


@contextmanager
def _alone(url: str) -> Iterator[None]:
    """Wait until nobody else migrates, and have nobody begin meanwhile.

    Who waits asks again and again, in no transaction: an index that is built beside work waits for each that is open.
    """
    with _connected(url, isolation_level="AUTOCOMMIT") as connection:
        while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}).scalar_one():
            time.sleep(_ASK_EVERY)
        yield


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    return config


@contextmanager
def _connected(url: str, **options: Any) -> Iterator[Connection]:
    """A connection of its own, its engine thrown away afterwards. ``options``: the engine's."""
    engine = create_engine(url, connect_args={"connect_timeout": 10}, poolclass=NullPool, **options)
    try:
        with engine.connect() as connection:
            yield connection
    except OperationalError as error:
        raise LedgerUnavailable(f"Postgres does not answer: {str(error.orig).strip()}") from None
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != INSUFFICIENT_PRIVILEGE:
            raise
        why = str(error.orig).splitlines()[0]
        raise NotPermitted(f"{why}: let the user of CHIFFON_DATABASE_URL create tables there") from None
