"""Connections: durable whatever the server's default, and not to be confused by a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import IO

import psutil
import pytest
from psycopg2 import extensions

from chiffon.domain.errors import Busy, LedgerUnavailable
from chiffon.domain.verdicts import Completed
from chiffon.ledger import control, hands, sweeps
from chiffon.ledger.accept import accept
from chiffon.ledger.claims import claim
from chiffon.ledger.condemn import condemn
from chiffon.ledger.connect import Cursor, Ledger, open_session, session_statements, session_transaction
from chiffon.ledger.failures import LostRace
from chiffon.ledger.patience import ANSWER_WITHIN, PatientConnection
from chiffon.ledger.settle import Settlement, settle
from tests.bench import LEASE, TTL, Bench
from tests.builders import an_error, new_task
from tests.racing import Thread, until

HOLDER = """
import os, sys
from chiffon.ledger.connect import Ledger, open_session
session = open_session(sys.argv[1], "holder")
session.cursor().execute("SELECT pg_advisory_lock(7, 7)")
session.commit()
child = os.fork()
if child == 0:
    print("child", os.getpid(), flush=True)
    sys.stdin.read()
    sys.exit()
os.waitpid(child, 0)
session.cursor().execute("SELECT 1")
print("parent", "goes on", flush=True)
sys.stdin.read()
"""

OPENER = """
import os, sys, time
import psycopg2
from chiffon.ledger.connect import open_session
connect = psycopg2.connect
def forking(**arguments):
    # As if another thread forked just now: the connection is there, and nobody knows of it yet.
    psycopg2.connect = connect
    connection = connect(**arguments)
    child = os.fork()
    if child == 0:
        print("child", os.getpid(), flush=True)
        sys.stdin.read()
        os._exit(0)
    return connection
psycopg2.connect = forking
session = open_session(sys.argv[1], "holder")
session.cursor().execute("SELECT pg_advisory_lock(7, 7)")
session.commit()
print("parent", "holds", flush=True)
sys.stdin.read()
"""

SHARER = """
import os, sys
from chiffon.ledger.connect import Ledger
ledger = Ledger(sys.argv[1])
def backend():
    with ledger.transaction() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]
mine = backend()
if os.fork() == 0:
    assert backend() != mine
    sys.exit()
assert os.wait()[1] == 0
assert backend() == mine
"""


@contextmanager
def running(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process of its own, with what it says."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def holder(bench: Bench) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lock, and has a child that does nothing."""
    with running(HOLDER, bench.url) as process:
        yield process


def said(stream: IO[str] | None) -> list[str]:
    """The next line of a process."""
    assert stream is not None
    return stream.readline().split()


def is_held(bench: Bench) -> bool:
    """Whether somebody holds the lock."""
    return bool(bench.sql("SELECT true FROM pg_locks WHERE locktype = 'advisory' AND classid = 7 AND objid = 7"))


def commits(cursor: Cursor) -> str:
    """How durable the commit of a transaction will be."""
    cursor.execute("SHOW synchronous_commit")
    return str(cursor.fetchone()[0])


def test_a_lock_is_free_when_its_holder_is_killed_though_its_child_lives(
    bench: Bench, holder: subprocess.Popen[str]
) -> None:
    _, child = said(holder.stdout)
    assert is_held(bench)
    holder.kill()
    until(lambda: not is_held(bench))
    assert psutil.Process(int(child)).status() != psutil.STATUS_ZOMBIE


def test_a_lock_is_free_though_its_holder_forked_while_it_connected(bench: Bench) -> None:
    with running(OPENER, bench.url) as holder:
        told = dict([said(holder.stdout), said(holder.stdout)])
        assert is_held(bench)
        holder.kill()
        until(lambda: not is_held(bench))
        assert psutil.Process(int(told["child"])).status() != psutil.STATUS_ZOMBIE


def test_the_end_of_a_child_does_not_end_its_parents_session(bench: Bench, holder: subprocess.Popen[str]) -> None:
    _, child = said(holder.stdout)
    os.kill(int(child), 15)
    assert said(holder.stdout) == ["parent", "goes", "on"]
    assert is_held(bench)


def test_a_forked_process_has_a_pool_of_its_own(bench: Bench) -> None:
    subprocess.run([sys.executable, "-c", SHARER, bench.url], check=True, timeout=60)


def settings_of(cursor: Cursor) -> dict[str, str]:
    """What the server does for a session, as far as it is not the server's default."""
    cursor.execute("SELECT name, setting FROM pg_settings WHERE source = 'session'")
    return dict(cursor.fetchall())


def test_a_session_is_dropped_soon_after_its_host_is_gone_and_not_after_two_hours(bench: Bench) -> None:
    session = open_session(bench.url, "mine")
    with session_transaction(session) as cursor, bench.transaction() as pooled:
        for found in (settings_of(cursor), settings_of(pooled)):
            assert int(found["tcp_keepalives_idle"]) + 2 * int(found["tcp_keepalives_count"]) < 20
            assert int(found["tcp_user_timeout"]) <= 10_000
    session.close()


def test_who_stops_in_a_transaction_of_the_pool_keeps_its_rows_for_a_moment_only(bench: Bench) -> None:
    with bench.transaction() as cursor:
        found = settings_of(cursor)
    assert (found["lock_timeout"], found["idle_in_transaction_session_timeout"]) == ("2000", "10000")


def test_who_waits_for_a_row_in_the_pool_does_not_wait_for_ever(bench: Bench) -> None:
    task_id = bench.born()
    with bench.transaction() as holder:
        holder.execute("SELECT FROM tasks WHERE task_id = %s FOR UPDATE", [task_id])
        with pytest.raises(LostRace), bench.transaction() as cursor:
            cursor.execute("UPDATE tasks SET priority = 1 WHERE task_id = %s", [task_id])


def test_a_setting_is_left_on_no_session_that_a_pooler_shares(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooler hands out a process id of its own making: it is told here by one that is wrong."""

    class Elsewhere(extensions.ConnectionInfo):
        backend_pid = 1

    monkeypatch.setattr(PatientConnection, "info", property(Elsewhere))
    with bench.transaction() as cursor:
        assert settings_of(cursor) == {}


def test_every_promise_is_on_disk_before_it_is_given_whatever_the_servers_default(bench: Bench) -> None:
    ((name,),) = bench.sql("SELECT current_database()")
    for default, promised in (("off", "on"), ("local", "on"), ("remote_write", "on"), ("remote_apply", "remote_apply")):
        bench.sql(f"ALTER DATABASE {name} SET synchronous_commit = '{default}'")
        bench.ledger = Ledger(bench.url)
        with bench.transaction() as cursor:
            assert commits(cursor) == default
        task, agent = new_task(), bench.agent()
        with bench.transaction() as cursor:
            accept(cursor, [task], lease=LEASE)
            assert commits(cursor) == promised
        with session_transaction(agent.session) as cursor:
            claim(cursor, {task.task_id: new_task().task_id}, incarnation=agent.incarnation, agent_id=agent.name)
            assert commits(cursor) == promised
        with bench.transaction() as cursor:
            control.ask_to_stop(cursor, task.task_id)
            assert commits(cursor) == promised
        with session_transaction(agent.session) as cursor:
            settle(cursor, [Settlement(task.task_id, 1, Completed("1"))], ttl=TTL, max_crashes=3)
            assert commits(cursor) == promised
        lost = bench.agent("lost")
        bench.claimed(by=lost)
        bench.lose(lost)
        for step in (
            lambda cursor: control.cancel_waiting(cursor, "nobody", ttl=TTL),
            lambda cursor: control.replay(cursor, "nobody", lease=LEASE),
            lambda cursor: condemn(cursor, "nobody", an_error(), owed=False, ttl=TTL),
            lambda cursor: sweeps.expire(cursor, limit=1, ttl=TTL),
            lambda cursor, dead=lost.incarnation: sweeps.take_over(cursor, dead, ttl=TTL, max_deaths=9),
        ):
            bench.born(expires_in=-1.0)
            with bench.transaction() as cursor:
                step(cursor)
                assert commits(cursor) == promised


def test_who_waits_for_the_hand_gives_up_before_the_connection_is_taken_for_dead() -> None:
    assert signature(hands.one_hand).parameters["patience"].default < ANSWER_WITHIN


def test_one_hand_holds_off_the_other_until_it_lets_go(bench: Bench) -> None:
    with hands.one_hand(bench.ledger, hands.DEAD_LETTERS):
        with pytest.raises(Busy), hands.one_hand(bench.ledger, hands.DEAD_LETTERS, patience=0.05):
            pass
        with hands.one_hand(bench.ledger, 5):
            pass

        def reach() -> str:
            with hands.one_hand(bench.ledger, hands.DEAD_LETTERS):
                return "in"

        late = Thread(reach)
        until(lambda: bench.sql("SELECT true FROM pg_stat_activity WHERE wait_event = 'advisory'"))
    assert late.answer() == "in"


def test_a_session_that_is_closed_is_told_as_one_by_statements_too(bench: Bench) -> None:
    session = open_session(bench.url, "closed")
    session.close()
    with pytest.raises(LedgerUnavailable), session_statements(session) as cursor:
        cursor.execute("SELECT 1")
