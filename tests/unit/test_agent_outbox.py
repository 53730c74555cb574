"""Events of a moment go in one message, also after a reconnect has brought another dispatcher."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chiffon.agent import outbox
from chiffon.agent.outbox import MOST, WITHIN, Outbox


class Dispatcher:
    """Counts how often it is flushed."""

    def __init__(self) -> None:
        self.buffer_limit = 24
        self.flushed = 0

    def flush(self) -> None:
        """Count."""
        self.flushed += 1


class Consumer:
    """A consumer that is its own hub, and keeps the calls that are due later."""

    def __init__(self) -> None:
        self.hub = self
        self.event_dispatcher: Dispatcher | None = Dispatcher()
        self.later: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Keep a call."""
        self.later.append((seconds, call))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be moved on."""
    moment = [100.0]
    monkeypatch.setattr(outbox.time, "monotonic", lambda: moment[0])
    return moment


def test_the_events_of_a_moment_are_sent_once_and_the_next_ones_again(now: list[float]) -> None:
    consumer = Consumer()
    box = Outbox(consumer)
    for _ in range(30):
        box.put_by()
    assert [seconds for seconds, _ in consumer.later] == [WITHIN]
    now[0] += WITHIN
    box.put_by()
    assert len(consumer.later) == 2
    for _, call in consumer.later:
        call()
    assert consumer.event_dispatcher is not None
    assert (consumer.event_dispatcher.flushed, consumer.event_dispatcher.buffer_limit) == (2, MOST)


def test_what_was_put_by_before_a_reconnect_is_the_next_dispatcher_s(now: list[float]) -> None:
    consumer = Consumer()
    Outbox(consumer).put_by()
    first, consumer.event_dispatcher = consumer.event_dispatcher, None
    consumer.later[0][1]()
    consumer.event_dispatcher = Dispatcher()
    consumer.later[0][1]()
    assert first is not None
    assert (first.flushed, consumer.event_dispatcher.flushed) == (0, 1)
