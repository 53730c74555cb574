"""Who waits for a task gets it as soon as it has ended, whatever Postgres does meanwhile."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chiffon.config import validated_database_url
from chiffon.devstack.postgres import PrivatePostgres
from chiffon.dispatch.wait import Waiter
from chiffon.domain.tasks import NewTask
from chiffon.domain.views import TaskView
from chiffon.ledger.accept import accept
from chiffon.ledger.connect import Ledger
from chiffon.ledger.control import cancel_waiting
from chiffon.ledger.listener import Listener, listener_at
from tests.e2e.waiting import eventually

PATIENCE = 20.0


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    ledger = Ledger(validated_database_url(ledger_url))
    yield ledger
    ledger.close()


@pytest.fixture
def waiter(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Waiter:
    """One that never looks without having been told to."""
    monkeypatch.setattr(listener_at(ledger.url), "reread", 3600.0)
    return Waiter(ledger, ledger.url)


def write_down(ledger: Ledger, *task_ids: str) -> None:
    new = [NewTask(task_id, f"request of {task_id}", "a" * 32, "echo", "f" * 64) for task_id in task_ids]
    with ledger.transaction() as cursor:
        accept(cursor, new, lease=60)


def end(ledger: Ledger, task_id: str) -> None:
    with ledger.transaction() as cursor:
        assert cancel_waiting(cursor, task_id, ttl=60)


class Waiting:
    """A thread that waits for a task, for longer than anybody waits for its result: it has to be woken."""

    def __init__(self, waiter: Waiter, task_id: str) -> None:
        self.found: TaskView | None = None
        self._thread = threading.Thread(target=self._wait, args=(waiter, task_id), daemon=True)
        self._thread.start()

    def _wait(self, waiter: Waiter, task_id: str) -> None:
        self.found = waiter.wait(task_id, 100 * PATIENCE)

    def result(self) -> tuple[str, str] | None:
        self._thread.join(PATIENCE)
        return self.found and (self.found.task_id, self.found.status)


def listening(ledger: Ledger) -> Any:
    return eventually("it listens", lambda: listener_at(ledger.url).session)


def test_a_task_that_is_not_there_is_not_waited_for(waiter: Waiter) -> None:
    assert waiter.wait("nobody", PATIENCE) is None


def test_a_task_that_has_ended_is_not_waited_for(ledger: Ledger, waiter: Waiter) -> None:
    write_down(ledger, "one")
    end(ledger, "one")
    view = waiter.wait("one", PATIENCE)
    assert view is not None
    assert view.status == "cancelled"
    assert listener_at(ledger.url).session is None


def test_an_end_wakes_who_waits_for_it(ledger: Ledger, waiter: Waiter) -> None:
    write_down(ledger, "one", "two")
    waiting = Waiting(waiter, "one")
    listening(ledger)
    end(ledger, "two")
    end(ledger, "one")
    assert waiting.result() == ("one", "cancelled")


def test_the_task_as_it_stands_is_returned_when_the_time_is_over(ledger: Ledger, waiter: Waiter) -> None:
    write_down(ledger, "one")
    began = time.monotonic()
    view = waiter.wait("one", 0.3)
    assert view is not None
    assert view.status == "pending"
    assert 0.3 <= time.monotonic() - began < 5


def test_many_waiters_are_each_woken_with_their_own(ledger: Ledger, waiter: Waiter) -> None:
    names = [f"task {number}" for number in range(30)]
    write_down(ledger, *names)
    waiting = {name: Waiting(waiter, name) for name in names}
    listening(ledger)
    for name in names:
        end(ledger, name)
    assert {name: w.result() for name, w in waiting.items()} == {name: (name, "cancelled") for name in names}


def test_what_ends_while_nobody_listens_is_seen_after_the_reconnect(
    ledger: Ledger, waiter: Waiter, postgres: PrivatePostgres
) -> None:
    write_down(ledger, "one")
    waiting = Waiting(waiter, "one")
    first = listening(ledger)
    postgres.stop()
    eventually("the session is lost", lambda: first.closed)
    postgres.start()
    end(ledger, "one")
    assert waiting.result() == ("one", "cancelled")


def test_a_listener_stops_when_nobody_waits_and_starts_again(ledger: Ledger) -> None:
    listener = Listener(ledger.url, linger=0)
    for _ in range(2):
        with listener.subscribe(["one"]) as ear:
            assert ear.wait(PATIENCE) == {"one"}  # it listens: look again
            assert listener.session is not None
        eventually("it has stopped", lambda: listener.session is None)


def test_in_a_forked_child_the_session_s_descriptor_becomes_nobody_else_s(ledger: Ledger) -> None:
    """Libpq has it still, and the child's own children let go of it again: it must mean no other file by then."""
    listener = Listener(ledger.url, linger=0)
    with listener.subscribe(["one"]):
        eventually("it listens", lambda: listener.session is not None)
        descriptor = listener.session.fileno()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(OSError):
                os._exit(0 if os.path.samestat(os.fstat(descriptor), os.stat(os.devnull)) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_waiter_looks_again_every_few_seconds_without_being_told(ledger: Ledger) -> None:
    listener = Listener(ledger.url, reread=0.2, linger=0)
    with listener.subscribe(["one", "two"]) as ear:
        assert ear.wait(PATIENCE) == {"one", "two"}
        assert ear.wait(PATIENCE) == {"one", "two"}
        assert ear.wait(0.01) == set()
