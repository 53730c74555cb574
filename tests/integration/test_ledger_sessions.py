"""Connections: durable whatever the server's default, and not to be confused by a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

import psutil
import pytest

from chiffon.domain.errors import Busy
from chiffon.domain.verdicts import Completed
from chiffon.ledger import control, hands
from chiffon.ledger.accept import accept
from chiffon.ledger.claims import claim
from chiffon.ledger.connect import Cursor, Ledger, open_session, session_transaction
from chiffon.ledger.settle import Settlement, settle
from tests.bench import LEASE, TTL, Bench
from tests.builders import new_task
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


@pytest.fixture
def holder(bench: Bench) -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lock, and has a child that does nothing."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, bench.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


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


def test_the_end_of_a_child_does_not_end_its_parents_session(bench: Bench, holder: subprocess.Popen[str]) -> None:
    _, child = said(holder.stdout)
    os.kill(int(child), 15)
    assert said(holder.stdout) == ["parent", "goes", "on"]
    assert is_held(bench)


def test_a_forked_process_has_a_pool_of_its_own(bench: Bench) -> None:
    subprocess.run([sys.executable, "-c", SHARER, bench.url], check=True, timeout=60)


def test_a_session_is_dropped_soon_after_its_host_is_gone_and_not_after_two_hours(bench: Bench) -> None:
    session = open_session(bench.url, "mine")
    with session_transaction(session) as cursor:
        cursor.execute(
            "SELECT current_setting('tcp_keepalives_idle')::int * current_setting('tcp_keepalives_count')::int"
        )
        assert cursor.fetchone()[0] <= 60
    session.close()


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
        for step in (
            lambda cursor: control.cancel_waiting(cursor, "nobody", ttl=TTL),
            lambda cursor: control.replay(cursor, "nobody", lease=LEASE),
        ):
            with bench.transaction() as cursor:
                step(cursor)
                assert commits(cursor) == promised


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
