"""Ways into Postgres: a pool for short transactions, and sessions that somebody holds for long."""

from __future__ import annotations

import contextlib
import math
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg2
import psycopg2.extensions
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from chiffon.domain.errors import LedgerUnavailable
from chiffon.ledger.address import connect_arguments
from chiffon.ledger.failures import committing, translated
from chiffon.ledger.patience import PATIENT
from chiffon.ledger.unshared import connect_unshared

Cursor: TypeAlias = Any  # psycopg2 has no types of its own
"""A psycopg2 cursor inside an open transaction: what every statement of this room takes."""

TESTED_AFTER = 1.0
"""Seconds of idleness after which a connection of the pool is tested before it is lent."""

_USED_AT = "chiffon_used_at"

_KEEPALIVE: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds; what was sent and never answered is not the keepalives' business
}

_SESSION = {
    "lock_timeout": "2s",
    "tcp_keepalives_idle": "5s",
    "tcp_keepalives_interval": "2s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
}
"""What the server is to do for every session.

It drops the session soon after the client's host is gone: its own default would be two hours. Whoever holds a row for
longer than two seconds holds up nobody else's: the statement is a LostRace.
"""

_IN_SHORT = {"idle_in_transaction_session_timeout": "10s"}
"""For a client that has short transactions only: if it is stopped in the middle of one, it does not keep its rows."""

_POOLED_SESSION = _SESSION | _IN_SHORT

_HELD_SESSION = _SESSION | {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""And for one that somebody holds for long, and that plans its statements once (see `planned`).

They look rows up, by their ids or in the small index that is made for them. A plan that was made while the tables were
empty must not read them from end to end when they have grown.
"""

# name: set up  -- has the server treat this session so, until its end
_SET_UP = """
SELECT set_config(name, value, false) FROM unnest(%(names)s::text[], %(values)s::text[]) AS s (name, value)
"""

# name: set up if own  -- the same, but behind a transaction pooler nothing
# There the setting would be that of whoever has this backend next; and a pooler may refuse it as an option of the
# connection. It hands out process ids of its own making, so that a cancel comes to it.
_SET_UP_IF_OWN = f"{_SET_UP} WHERE pg_backend_pid() = %(pid)s"


class Ledger:
    """A pool of connections. Safe to share between threads, and after a fork: each process id gets its own pool."""

    def __init__(self, url: str, *, pool_size: int = 5, engine: Engine | None = None) -> None:
        self.url = url
        self._pool_size = pool_size
        self._engine = engine
        self._pid = os.getpid()

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's engine, for whoever shares the pool (Flask-SQLAlchemy)."""
        if self._engine is None or self._pid != os.getpid():
            if self._engine is not None:
                self._engine.dispose(close=False)  # the sockets are the parent's
            self._engine = make_engine(self.url, pool_size=self._pool_size)
            self._pid = os.getpid()
        return self._engine

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """One transaction: committed at the end, rolled back by an exception.

        Raises:
            LedgerUnavailable: Postgres does not answer; nothing was committed.
            CommitUnknown: it stopped answering during the commit.
            RefusedData: it refused the values.
        """
        with self._lent() as raw, session_transaction(raw) as cursor:
            yield cursor

    @contextmanager
    def _lent(self) -> Iterator[Any]:
        try:
            with translated():
                pooled = self.engine.raw_connection()
        except PoolTimeout as error:
            raise LedgerUnavailable(f"no connection to Postgres became free: {error}") from None
        raw: Any = pooled.dbapi_connection
        try:
            yield raw
        finally:
            if raw.closed:
                pooled.invalidate()
            pooled.close()

    @contextmanager
    def statements(self) -> Iterator[Cursor]:
        """Each call of ``execute`` a transaction of its own, in one round trip.

        Raises:
            LedgerUnavailable: Postgres does not answer, and nothing was asked; or it said no, and did nothing.
            CommitUnknown: it stopped answering when something was.
        """
        with self._lent() as raw, committing(), session_statements(raw) as cursor:
            yield cursor

    def close(self) -> None:
        """Close what is idle."""
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()


def make_engine(url: str, *, pool_size: int = 5) -> Engine:
    """A pooled engine that tests idle connections before use, so that a restarted Postgres costs no request."""
    return create_engine(url, **engine_options(pool_size))


def engine_options(pool_size: int) -> dict[str, Any]:
    """What every engine on the ledger is made with, whoever makes it."""
    return {
        "pool_size": pool_size,
        "max_overflow": pool_size,
        "pool_timeout": 5,
        "connect_args": _KEEPALIVE | PATIENT,
        "pool_events": [(_set_up_pooled, "connect"), (_test_idle, "checkout"), (_note_use, "checkin")],
    }


def _set_up_pooled(connection: Any, record: Any) -> None:
    """What the pool does with each new connection."""
    if _set_up(connection, _SET_UP_IF_OWN, _POOLED_SESSION):
        connection.planned = {}
    _note_use(connection, record)


def _note_use(_: Any, record: Any) -> None:
    """A connection goes back to the pool."""
    record.info[_USED_AT] = time.monotonic()


def _test_idle(connection: Any, record: Any, _: Any) -> None:
    """See whether a connection that was idle for a while, or has something to say, is still one.

    (SQLAlchemy's own test is made each time, and takes as long as most of what is asked.)
    """
    is_fresh = time.monotonic() - record.info.get(_USED_AT, -math.inf) < TESTED_AFTER
    if is_fresh and not _has_news(connection):
        return
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connection.autocommit = False
    except psycopg2.Error as error:
        raise InvalidatePoolError from error


def _set_up(connection: Any, statement: str, settings: dict[str, str]) -> bool:
    """Whether the session took the settings."""
    connection.autocommit = True  # what a transaction sets goes when it is rolled back
    with connection.cursor() as cursor:
        pid = connection.info.backend_pid
        cursor.execute(statement, {"names": list(settings), "values": list(settings.values()), "pid": pid})
        is_own = bool(cursor.rowcount)
    connection.autocommit = False
    return is_own


@contextmanager
def on_connection(connection: Any) -> Iterator[Cursor]:
    """A cursor in the caller's own transaction, on a psycopg2 connection or SQLAlchemy's."""
    if isinstance(connection, Connection) and not connection.in_transaction():
        connection.begin()  # SQLAlchemy does not see what its cursor does, and would find nothing to commit
    fairy = getattr(connection, "connection", connection)
    raw = getattr(fairy, "dbapi_connection", fairy)
    with raw.cursor(cursor_factory=psycopg2.extensions.cursor) as cursor:  # the caller's own may make no tuples of rows
        yield cursor


def _has_news(connection: Any) -> bool:
    """Whether the server has said something that nobody asked for: that it ends, mostly."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


def open_session(url: str, name: str, *, in_short: bool = False) -> Any:
    """A psycopg2 connection of one's own, called ``name`` in ``pg_stat_activity``. Raises LedgerUnavailable.

    ``in_short``: Postgres ends the session if its client is stopped in a transaction. Not so for who lives by its
    session: an agent that stands still for a moment would be taken for dead.
    """
    arguments = connect_arguments(url)
    with translated():
        connection = connect_unshared({**arguments, **_KEEPALIVE, **PATIENT, "application_name": name[:63]})
        _set_up(connection, _SET_UP, _HELD_SESSION | _IN_SHORT if in_short else _HELD_SESSION)
    connection.planned = {}
    return connection


@contextmanager
def session_transaction(connection: Any) -> Iterator[Cursor]:
    """One transaction on a held session; raises as `Ledger.transaction` does."""
    try:
        with translated(), connection.cursor() as cursor:
            yield cursor
        with committing():
            connection.commit()
    except BaseException:
        if not connection.closed:
            with contextlib.suppress(psycopg2.Error):  # it is what went wrong first that counts
                connection.rollback()
        raise


@contextmanager
def session_statements(connection: Any) -> Iterator[Cursor]:
    """On a held session, each call of ``execute`` a transaction of its own, in one round trip.

    Raises LedgerUnavailable; then it is not known whether the last one was committed.
    """
    try:
        with translated():
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor
    finally:
        if not connection.closed:
            connection.autocommit = False
