"""Looking whether an earlier broker of the list answers: now and then, and nobody waits for it."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import pytest

from chiffon.bus import failback
from chiffon.bus.failback import EVERY, Failback
from chiffon.domain.errors import BrokerUnavailable
from tests.clock import Clock
from tests.e2e.waiting import eventually

LIST = "amqp://first; amqp://second ;amqp://third"


class Brokers:
    """Stand in for all of them: what was asked, and whether it answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = True
        self.hang = threading.Event()
        self.hang.set()

    def connect(self, broker_url: str, **_: Any) -> Any:
        """As the bus's own."""
        self.asked.append(broker_url)
        self.hang.wait(30)
        if not self.answer:
            raise BrokerUnavailable("away")
        return nullcontext()


@pytest.fixture
def brokers(monkeypatch: pytest.MonkeyPatch) -> Brokers:
    """Those of the list."""
    found = Brokers()
    monkeypatch.setattr(failback, "connect", found.connect)
    monkeypatch.setattr(failback, "takes_messages", lambda connection: True)
    return found


def look(failing_back: Failback, place: int) -> bool:
    """Ask, have the look that is due end, and ask again."""
    if failing_back.is_due(place):
        return True
    eventually("the look to end", lambda: not (failing_back._looking and failing_back._looking.is_alive()))
    return failing_back.is_due(place)


def test_who_is_at_the_first_broker_looks_at_none(brokers: Brokers) -> None:
    assert not look(Failback(LIST, name="test"), 0)
    assert not look(Failback("amqp://only", name="test"), 0)
    assert brokers.asked == []


def test_the_brokers_before_the_one_in_use_are_looked_at_now_and_then_until_one_answers(brokers: Brokers) -> None:
    clock = Clock()
    failing_back = Failback(LIST, name="test", clock=clock)
    brokers.answer = False
    assert not look(failing_back, 2)
    assert not look(failing_back, 2)
    assert brokers.asked == ["amqp://first;amqp://second"]
    clock.now += EVERY
    brokers.answer = True
    assert look(failing_back, 2)
    assert len(brokers.asked) == 2
    assert not look(failing_back, 1), "it is found anew"


def test_who_consumes_waits_for_two_looks_in_a_row_that_find_one(brokers: Brokers) -> None:
    clock = Clock()
    failing_back = Failback(LIST, name="test", looks=2, clock=clock)
    found = []
    for answer in (True, False, True, True):
        brokers.answer = answer
        found.append(look(failing_back, 1))
        clock.now += EVERY
    assert found == [False, False, False, True]


def test_nobody_waits_for_a_broker_that_hangs(brokers: Brokers) -> None:
    failing_back = Failback(LIST, name="test")
    brokers.hang.clear()
    assert [failing_back.is_due(1) for _ in range(3)] == [False] * 3
    brokers.hang.set()
    eventually("the look to end", lambda: failing_back.is_due(1))
