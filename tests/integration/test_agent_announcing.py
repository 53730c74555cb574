"""Events of tasks are made for whoever listens, and for nobody else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest
from celery import Celery
from kombu.asynchronous import Hub

from chiffon.agent.announcing import Dispatcher, LedgerEvents
from chiffon.bus import gulps
from tests.bells import bare_channel


class Announcer:
    """A dispatcher on a connection that an event loop reads, as an agent has it; its events are sent at `flush`."""

    def __init__(self, url: str) -> None:
        app = Celery(set_as_current=False)
        app.events_cls = LedgerEvents
        self.connection = kombu.Connection(url)
        self.connection.ensure_connection(max_retries=1)
        self.hub = Hub()
        self._turns = self.hub.create_loop()
        gulps.watch(self.connection, self.hub)
        self.put_by = 0
        self.dispatcher: Dispatcher = app.events.Dispatcher(
            self.connection, hostname="agent@here", enabled=True, buffer_group=["task"], on_send_buffered=self._count
        )
        self.dispatcher.buffer_limit = 10_000

    def _count(self) -> None:
        self.put_by += 1

    def tell(self, *names: str) -> None:
        """An event for each of these, in one go."""
        for name in names:
            self.dispatcher.send("task-started", uuid=name)
        self.dispatcher.flush()

    def turn(self, seconds: float = 0.2) -> None:
        """Let the event loop go around."""
        until = time.monotonic() + seconds
        alarm = self.hub.call_repeatedly(0.01, lambda: None)
        while time.monotonic() < until:
            next(self._turns)
        alarm.cancel()

    @property
    def notes(self) -> int:
        """How many events are noted, and not made."""
        return len(self.dispatcher._noted)


class Listener:
    """A queue bound as Flower binds its own."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._queue = channel.queue_declare("", exclusive=True).queue
        channel.queue_bind(self._queue, "celeryev", "#")

    def heard(self) -> list[list[dict[str, Any]]]:
        """The messages that have come."""
        found = []
        while (message := self._channel.basic_get(self._queue, no_ack=True)) is not None:
            found.append(json.loads(message.body))
        return found

    def names(self) -> list[str]:
        """The tasks of the events that have come."""
        return [event["uuid"] for message in self.heard() for event in message]


@pytest.fixture
def announcer(broker_url: str) -> Iterator[Announcer]:
    found = Announcer(broker_url)
    yield found
    found.connection.collect()
    found.hub.close()


@pytest.fixture
def listen(broker_url: str) -> Iterator[Callable[[], Listener]]:
    with bare_channel(broker_url) as channel:
        channel.exchange_declare("celeryev", "topic", durable=True, auto_delete=False)
        yield lambda: Listener(channel)


def deaf(announcer: Announcer) -> None:
    """Have it know that nobody listens."""
    announcer.tell("lost")
    announcer.turn()
    assert not announcer.dispatcher._is_heard


def test_whoever_listens_from_the_start_hears_all(announcer: Announcer, listen: Callable[[], Listener]) -> None:
    listener = listen()
    announcer.tell("1", "2")
    announcer.turn()
    announcer.tell("3")
    announcer.turn()
    assert listener.names() == ["1", "2", "3"]
    assert announcer.notes == 0


def test_while_nobody_listens_events_are_not_even_made(announcer: Announcer, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf(announcer)
    published: list[Any] = []
    publish = announcer.dispatcher.producer.publish
    monkeypatch.setattr(
        announcer.dispatcher.producer, "publish", lambda body, **o: (published.append(body), publish(body, **o))
    )
    for _ in range(3):
        announcer.tell(*"abc")
        announcer.turn()
    assert published == [[], [], []]
    assert announcer.notes == 0


def test_whoever_begins_to_listen_hears_all_that_happens_from_then_on(
    announcer: Announcer, listen: Callable[[], Listener]
) -> None:
    deaf(announcer)
    begun = time.time()
    listener = listen()
    announcer.tell("1", "2")
    announcer.tell("3")
    announcer.turn()
    announcer.tell("4")
    announcer.turn()
    heard = [event for message in listener.heard() for event in message]
    assert [event["uuid"] for event in heard] == ["1", "2", "3", "4"]
    assert all(begun <= event["timestamp"] <= time.time() for event in heard)
    assert [event["clock"] for event in heard] == sorted(event["clock"] for event in heard)
    assert {event["hostname"] for event in heard} == {"agent@here"}


def test_what_was_noted_after_the_question_is_asked_about_anew(
    announcer: Announcer, listen: Callable[[], Listener]
) -> None:
    deaf(announcer)
    announcer.tell("before")
    listener = listen()  # the question has been asked, and will come back
    announcer.dispatcher.send("task-started", uuid="after")
    put_by = announcer.put_by
    announcer.turn()
    assert announcer.notes == 1
    assert announcer.put_by == put_by + 1, "nobody would flush it"
    announcer.dispatcher.flush()
    announcer.turn()
    assert listener.names() == ["after"]


def test_events_that_come_back_late_are_no_answer(announcer: Announcer, listen: Callable[[], Listener]) -> None:
    announcer.tell("lost")  # these come back when the question is under way
    announcer.dispatcher._is_heard = False
    listener = listen()
    announcer.tell("heard")
    announcer.turn()
    assert listener.names() == ["heard"]


def test_who_stops_listening_is_noticed(announcer: Announcer, broker_url: str) -> None:
    with bare_channel(broker_url) as channel:
        channel.exchange_declare("celeryev", "topic", durable=True, auto_delete=False)
        Listener(channel)
        announcer.tell("1")
        announcer.turn()
        assert announcer.dispatcher._is_heard
    deaf(announcer)


def test_the_last_words_are_sent_unasked(announcer: Announcer, listen: Callable[[], Listener]) -> None:
    deaf(announcer)
    listener = listen()
    announcer.dispatcher.send("task-started", uuid="last")
    announcer.dispatcher.send_noted()
    announcer.turn()
    assert listener.names() == ["last"]


def test_what_was_noted_before_a_reconnect_is_the_next_dispatchers(
    announcer: Announcer, broker_url: str, listen: Callable[[], Listener]
) -> None:
    deaf(announcer)
    listener = listen()
    announcer.dispatcher.send("task-started", uuid="before")
    announcer.dispatcher.disable()
    announcer.dispatcher.flush()  # closed: nothing is asked, and nothing forgotten
    after = Announcer(broker_url)
    after.dispatcher.extend_buffer(announcer.dispatcher)
    after.dispatcher.flush()
    after.turn()
    after.connection.collect()
    after.hub.close()
    assert listener.names() == ["before"]


def test_a_broker_that_does_not_answer_does_not_fill_up_memory(
    announcer: Announcer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chiffon.agent.announcing.MOST_NOTED", 10)
    deaf(announcer)
    announcer.tell(*"abc")
    for number in range(100):
        announcer.dispatcher.send("task-started", uuid=str(number))
    assert announcer.notes <= 10
    announcer.turn()
    assert announcer.notes, "none of these was asked about"


def test_other_events_go_at_once(announcer: Announcer, listen: Callable[[], Listener]) -> None:
    deaf(announcer)
    listener = listen()
    announcer.dispatcher.send("worker-heartbeat", freq=2)
    announcer.turn()
    (event,) = listener.heard()
    assert event["type"] == "worker-heartbeat"  # type: ignore[call-overload]


def test_what_is_noted_while_the_broker_is_away_is_kept_for_the_next_dispatcher(announcer: Announcer) -> None:
    deaf(announcer)
    announcer.connection.collect()
    announcer.tell("ended meanwhile")
    assert announcer.notes == 1
