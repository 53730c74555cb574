"""An agent leaves a later broker of the list for an earlier one that answers, once nothing is left in its queues."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from chiffon.agent.returning import AT_MOST, QUIET, Returning
from chiffon.agent.traffic import Traffic
from tests.clock import Clock


class Hub:
    """An event loop that makes calls when the test says so."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def call_later(self, delay: float, call: Callable[..., None], *arguments: Any) -> None:
        """As kombu's."""
        self.calls.append(lambda: call(*arguments))


class Agent:
    """What is asked of Celery's consumer, with an earlier broker that is found at each look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, place: int = 1) -> None:
        self.clock = Clock()
        self.hub = Hub()
        self.consumer = SimpleNamespace(connection=SimpleNamespace(place=place), hub=self.hub, hostname="agent@host")
        self.traffic = Traffic(lambda: ("work_queue",), 1, 10.0, clock=self.clock)
        self.traffic.connected()
        self.returning = Returning(self.consumer, "amqp://a;amqp://b", self.traffic, self.clock)
        monkeypatch.setattr(self.returning._failback, "is_due", lambda place: place > 0)

    def leaves(self, after: float) -> bool:
        """Whether it is about to, after so many seconds more."""
        self.clock.now += after
        self.returning.look()
        return bool(self.hub.calls)


def test_it_leaves_when_nothing_has_been_in_its_queues_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(monkeypatch)
    assert not agent.leaves(after=0)
    assert agent.leaves(after=QUIET)
    with pytest.raises(ConnectionError, match="earlier in CHIFFON_BROKER_URL"):
        agent.hub.calls[0]()


def test_it_stays_for_what_is_in_them_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent(monkeypatch)
    agent.traffic.delivered()
    assert not agent.leaves(after=QUIET)
    agent.traffic.done()
    agent.traffic.delivered()  # there was another
    assert not agent.leaves(after=QUIET)
    assert agent.leaves(after=AT_MOST)


def test_it_leaves_neither_the_first_broker_nor_a_connection_that_has_come_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not Agent(monkeypatch, place=0).leaves(after=AT_MOST)
    agent = Agent(monkeypatch)
    assert agent.leaves(after=QUIET)
    agent.consumer.connection = SimpleNamespace(place=0)
    agent.hub.calls[0]()
