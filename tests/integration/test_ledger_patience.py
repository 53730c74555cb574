"""Nobody waits for a Postgres that hangs without an end."""

from __future__ import annotations

import time

import pytest

from chiffon.config import validated_database_url
from chiffon.devstack.postgres import PrivatePostgres
from chiffon.domain.errors import LedgerUnavailable
from chiffon.ledger import patience
from chiffon.ledger.connect import Ledger, open_session, session_transaction
from chiffon.ledger.patience import PER_SECOND, Patience

SHORT = 2.0


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "patience", Patience(SHORT))


def test_a_statement_of_a_pool_whose_server_hangs_fails_and_the_next_one_is_answered(
    ledger_url: str, postgres: PrivatePostgres
) -> None:
    ledger = Ledger(validated_database_url(ledger_url))
    with ledger.transaction() as cursor:
        cursor.execute("SELECT 1")
    postgres.pause()
    began = time.monotonic()
    with pytest.raises(LedgerUnavailable), ledger.transaction() as cursor:
        cursor.execute("SELECT 1")
    assert time.monotonic() - began < 30
    postgres.resume()
    with ledger.transaction() as cursor:
        cursor.execute("SELECT 2")
        assert cursor.fetchall() == [(2,)]
    ledger.close()


def test_a_session_whose_server_hangs_is_lost(ledger_url: str, postgres: PrivatePostgres) -> None:
    session = open_session(validated_database_url(ledger_url), "patient")
    postgres.pause()
    with pytest.raises(LedgerUnavailable), session_transaction(session) as cursor:
        cursor.execute("SELECT 1")
    postgres.resume()
    assert session.closed


def test_who_is_answered_in_time_is_left_alone(ledger_url: str) -> None:
    session = open_session(validated_database_url(ledger_url), "patient")
    for _ in range(3):
        with session_transaction(session) as cursor:
            cursor.execute("SELECT pg_sleep(%s)", (SHORT / 2,))
    assert not session.closed
    session.close()


def test_what_is_long_to_say_has_more_time(ledger_url: str) -> None:
    session = open_session(validated_database_url(ledger_url), "patient")
    with session_transaction(session) as cursor:
        values = {"seconds": SHORT + 2.0, "results": ["x" * PER_SECOND] * 10}
        cursor.execute("SELECT pg_sleep(%(seconds)s), %(results)s::text[]", values)
    assert not session.closed
    session.close()
