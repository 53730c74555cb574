"""The ringer goes on, whatever the ledger or the broker make of what it writes down."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg2
import pytest

from chiffon.bus.confirms import Receipt
from chiffon.bus.connect import connect
from chiffon.bus.dead_letters import look
from chiffon.bus.letters import Letter
from chiffon.config import Settings
from chiffon.dispatch import ring as room
from chiffon.dispatch.health import BrokerProbe, SchemaGuard, look_at_health
from chiffon.dispatch.ring import Debt, Ringer
from chiffon.dispatch.submit import first_ring
from chiffon.domain.errors import LedgerUnavailable, SchemaBehind
from chiffon.domain.verdicts import Failed
from chiffon.ledger import sweeps
from chiffon.ledger.connect import Ledger
from chiffon.ledger.failures import LostRace, RefusedData
from tests.bells import bare_channel
from tests.bench import Bench
from tests.builders import an_error, new_task
from tests.log_notes import LogNotes
from tests.racing import PATIENCE, until


class Broker:
    """A broker that takes everything; it speaks as a publisher does."""

    connected = True
    blocked = False

    def __init__(self) -> None:
        self.taken: list[str] = []

    def publish(self, letters: Sequence[Letter], *, within: float) -> Receipt:
        """Confirm all."""
        self.taken += [letter.message.message_id for letter in letters]
        return Receipt(confirmed=frozenset(letter.message.message_id for letter in letters))

    def tend(self) -> None:
        """Nothing is to be done."""

    def close(self) -> None:
        """Nothing is to be closed."""


class Troubled(Ledger):
    """A ledger whose next statement fails so."""

    trouble: Exception | None = None

    @contextmanager
    def statements(self) -> Iterator[Any]:
        """As its parent's, but for the next."""
        trouble, self.trouble = self.trouble, None
        if trouble is not None:
            raise trouble
        with super().statements() as cursor:
            yield cursor


class Slow(Ledger):
    """A ledger that answers when it is let."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked, self.may_answer = threading.Event(), threading.Event()

    @contextmanager
    def statements(self) -> Iterator[Any]:
        """As its parent's, later."""
        self.asked.set()
        assert self.may_answer.wait(PATIENCE)
        with super().statements() as cursor:
            yield cursor


def test_the_broker_has_the_next_rings_while_the_ledger_is_told_of_the_last(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker()
    monkeypatch.setattr(room.Ringer, "_publisher", lambda _: broker)
    ledger = Slow(bench.url)
    ringer = Ringer(Settings(database_url=bench.url), ledger)
    tasks = [new_task(), new_task()]
    bench.accept(*tasks)
    ringer.ring([first_ring(tasks[0])])
    assert ledger.asked.wait(PATIENCE)
    ringer.ring([first_ring(tasks[1])])
    until(lambda: len(broker.taken) == 2)
    assert [bench.status(task.task_id) for task in tasks] == ["pending", "pending"]
    ledger.may_answer.set()
    ringer.stop()  # and what the broker has is written down
    assert [bench.status(task.task_id) for task in tasks] == ["queued", "queued"]
    ledger.close()


@pytest.mark.parametrize(
    ("trouble", "is_repeated"),
    [
        (LedgerUnavailable("away"), True),
        (LostRace("held"), True),
        (SchemaBehind("older"), True),
        (RefusedData("no"), True),
        (psycopg2.ProgrammingError("unforeseen"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_trouble_with_one_batch_costs_at_most_its_confirms(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, trouble: Exception, is_repeated: bool
) -> None:
    monkeypatch.setattr(room.Ringer, "_publisher", lambda _: Broker())
    monkeypatch.setattr(room, "_PATIENCE", 0.01)
    ledger = Troubled(bench.url)
    ringer = Ringer(Settings(database_url=bench.url), ledger)
    first, second = new_task(), new_task()
    bench.accept(first, second)
    ledger.trouble = trouble
    ringer.ring([first_ring(first)])
    thread = ringer._thread
    until(lambda: ledger.trouble is None)
    ringer.ring([first_ring(second)])
    until(lambda: bench.status(second.task_id) == "queued")
    assert ringer._thread is thread
    assert bench.status(first.task_id) == ("queued" if is_repeated else "pending")
    ringer.stop()
    ledger.close()


def test_a_task_that_amqp_cannot_ring_for_ends_with_the_reason_and_costs_no_neighbour(
    bench: Bench, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogNotes()
    monkeypatch.setattr(room, "log", log)
    ringer = Ringer(Settings(database_url=bench.url, broker_url=broker_url), bench.ledger)
    unsayable = {"headers": {"n": 2**80}}
    tasks = [new_task(canvas=unsayable), new_task(queue="q" * 300), new_task()]
    bench.accept(*tasks)
    ringer.ring([first_ring(task) for task in tasks])
    until(lambda: bench.status(tasks[2].task_id) == "queued")
    until(lambda: [bench.status(task.task_id) for task in tasks[:2]] == ["dead_lettered"] * 2)
    for task in tasks[:2]:
        row = bench.row(task.task_id)
        assert "AMQP has no words for" in row["error"]["message"]
        assert not row["dead_letter_owed"]
    assert {line["task_id"] for line in log.said("unsayable")} == {task.task_id for task in tasks[:2]}
    ringer.stop()


def test_a_dead_letter_that_amqp_cannot_say_is_owed_no_longer(bench: Bench, broker_url: str) -> None:
    ringer = Ringer(Settings(database_url=bench.url, broker_url=broker_url), bench.ledger)
    task = new_task(canvas={"headers": {"n": 2**80}})
    bench.accept(task)
    bench.settle(bench.claimed(task.task_id), Failed(an_error()))
    assert bench.row(task.task_id)["dead_letter_owed"]
    ringer.ring([Debt(first_ring(task), 1, datetime.now(UTC), "it broke")])
    until(lambda: not bench.row(task.task_id)["dead_letter_owed"])
    ringer.stop()


def test_the_letter_that_pays_a_debt_says_when_its_task_died(bench: Bench, broker_url: str) -> None:
    ringer = Ringer(Settings(database_url=bench.url, broker_url=broker_url), bench.ledger)
    task = new_task()
    bench.accept(task)
    bench.settle(bench.claimed(task.task_id), Failed(an_error()))
    bench.pass_time(3600)
    with bench.transaction() as cursor:
        ringer.ring(Debt(*debt) for debt in sweeps.debts(cursor, limit=10, older=60, lease=5))
    until(lambda: not bench.row(task.task_id)["dead_letter_owed"])
    ringer.stop()
    with connect(broker_url, name="test") as connection:
        (letter,) = look(connection).letters
    assert letter.died_at == bench.row(task.task_id)["finished_at"].replace(microsecond=0)


def test_a_ringer_that_finds_another_queue_is_not_ready_until_that_is_gone(
    bench: Bench, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_PATIENCE", 0.05)
    settings = Settings(database_url=bench.url, broker_url=broker_url)
    ringer = Ringer(settings, bench.ledger)

    def problem() -> str | None:
        return look_at_health(SchemaGuard(bench.ledger), BrokerProbe(broker_url), ringer).problem

    assert problem() is None
    with bare_channel(broker_url) as channel:
        channel.queue_declare("work_queue", durable=True, auto_delete=False)
        ringer.ring([first_ring(new_task())])
        until(lambda: problem() is not None)
        began = time.monotonic()
        until(lambda: problem() is None or time.monotonic() - began > 1.0)  # it has nothing to ring by now
        assert "nothing can be published" in (problem() or "")
        assert "delete_queue work_queue" in ringer.state().detail
        channel.queue_delete("work_queue")
    until(lambda: problem() is None)
    ringer.stop()
