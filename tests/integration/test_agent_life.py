"""An agent's life in the ledger begins with a commit, and goes on only if the ledger knows of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from chiffon.agent import life as room
from chiffon.agent.life import Identity, Life
from chiffon.domain.errors import LedgerUnavailable
from chiffon.ledger.connect import open_session, session_transaction
from chiffon.ledger.failures import LostRace
from chiffon.ledger.sweeps import LOCK_CLASS
from tests.bench import Bench
from tests.racing import until

WHO = Identity(agent_id="agent@here", slots=1, queues=("work_queue",), work_types=("echo",), version="0")


@pytest.fixture
def life(bench: Bench) -> Iterator[Life]:
    lived = Life(bench.url, WHO)
    yield lived
    lived.drop()


def registered(bench: Bench) -> list[int]:
    """The incarnations that the ledger knows."""
    return [incarnation for (incarnation,) in bench.sql("SELECT incarnation FROM agents ORDER BY incarnation")]


def locked(bench: Bench) -> list[int]:
    """The incarnations whose lock somebody holds."""
    held = "SELECT objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND classid = %s ORDER BY 1"
    return [incarnation for (incarnation,) in bench.sql(held, LOCK_CLASS)]


def test_a_registration_that_was_rolled_back_is_made_again(
    bench: Bench, life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def breaking_off(session: Any) -> Iterator[Any]:
        with session_transaction(session) as cursor:
            yield cursor
            session.rollback()
            raise LedgerUnavailable("it broke off before the commit")

    with monkeypatch.context() as broken:
        broken.setattr(room, "session_transaction", breaking_off)
        with pytest.raises(LedgerUnavailable):
            life.begin()
    assert registered(bench) == []
    assert life.begin() == set()
    assert registered(bench) == locked(bench) == [life.incarnation]


def test_an_incarnation_that_the_ledger_has_lost_is_followed_by_another(bench: Bench, life: Life) -> None:
    life.begin()
    before = life.incarnation
    life.drop()
    until(lambda: locked(bench) == [])
    bench.sql("DELETE FROM agents")
    assert life.begin() == set()
    assert life.incarnation != before
    assert registered(bench) == locked(bench) == [life.incarnation]
    life.beat(["work_queue"], 1)


def test_a_number_whose_lock_somebody_holds_is_not_taken(bench: Bench, life: Life) -> None:
    other = open_session(bench.url, "other")
    with session_transaction(other) as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s, 1)", [LOCK_CLASS])
    with pytest.raises(LostRace):
        life.begin()
    life.begin()
    assert registered(bench) == [life.incarnation] == [2]
    other.close()
