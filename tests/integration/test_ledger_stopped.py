"""Who is stopped in the middle of a transaction keeps from the others what it holds for a moment only."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from chiffon.domain.errors import Busy
from chiffon.ledger import hands, rings
from tests.bench import LEASE, Bench
from tests.racing import until

SWEEPER = """
import os, signal, sys
from chiffon.config import Settings
from chiffon.dispatch.sweep import BATCH, Sweeper
from chiffon.ledger import rings
class Ringer:
    def ready(self): return True
    def room(self): return BATCH
lease = rings.lease
def stopped(cursor, **more):
    if leased := lease(cursor, **more):
        os.kill(os.getpid(), signal.SIGSTOP)
    return leased
rings.lease = stopped
Sweeper(Settings(database_url=sys.argv[1], sweep_seconds=0.1), Ringer(), name="stopped")._run()
"""

HAND = """
import os, signal, sys
from chiffon.ledger import hands
from chiffon.ledger.connect import Ledger
hands.IDLE_FOR = 1.0
with hands.one_hand(Ledger(sys.argv[1]), hands.DEAD_LETTERS):
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@contextmanager
def stopping(program: str, bench: Bench) -> Iterator[None]:
    """A process that has stopped itself."""
    with subprocess.Popen([sys.executable, "-c", program, bench.url]) as process:
        try:
            until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
            yield
        finally:
            process.kill()


def test_what_a_sweeper_that_was_stopped_had_leased_is_leased_by_another(bench: Bench) -> None:
    task_id = bench.born()
    bench.pass_time(60)

    def leased() -> list[str]:
        with bench.transaction() as cursor:
            return [ring.task_id for ring in rings.lease(cursor, limit=10, lease=LEASE)]

    with stopping(SWEEPER, bench):
        assert leased() == []
        assert until(leased) == [task_id]


def test_a_process_that_was_stopped_with_its_hand_in_the_queue_does_not_keep_the_others_out(bench: Bench) -> None:
    with stopping(HAND, bench), hands.one_hand(bench.ledger, hands.DEAD_LETTERS):
        pass


def test_who_is_long_about_it_keeps_the_hand(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hands, "IDLE_FOR", 1.0)
    monkeypatch.setattr(hands, "AWAKE", 0.2)
    with hands.one_hand(bench.ledger, hands.DEAD_LETTERS):
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 2.5)
        with pytest.raises(Busy), hands.one_hand(bench.ledger, hands.DEAD_LETTERS, patience=0.05):
            pass
