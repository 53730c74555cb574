"""An event loop reads whatever the broker has sent, in gulps, and loses and mixes up nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import kombu
import pytest
from kombu.asynchronous import Hub

from chiffon.bus import gulps


class Loop:
    """A connection that an event loop reads, with a consumer; what came is kept."""

    def __init__(self, url: str) -> None:
        self.connection = kombu.Connection(url)
        self.connection.ensure_connection(max_retries=1)
        self.hub = Hub()
        self.came: list[bytes] = []
        self.on_message: Callable[[Any], None] = lambda message: None
        self.queue = self.connection.channel().queue_declare("", exclusive=True).queue
        self._turns = self.hub.create_loop()
        self.channel = self.connection.channel()
        self.channel.basic_consume(self.queue, callback=self._take, no_ack=True)
        gulps.watch(self.connection, self.hub)

    def publish(self, *bodies: bytes) -> None:
        """Send messages to itself."""
        for body in bodies:
            self.channel.basic_publish(self.channel.prepare_message(body), routing_key=self.queue)

    def until(self, reached: Callable[[], bool]) -> None:
        """Let it turn."""
        deadline = time.monotonic() + 10
        alarm = self.hub.call_repeatedly(0.01, lambda: None)
        while not reached():
            assert time.monotonic() < deadline, f"only {len(self.came)} came"
            next(self._turns)
        alarm.cancel()

    def close(self) -> None:
        """End."""
        self.connection.collect()
        self.hub.close()

    def _take(self, message: Any) -> None:
        self.came.append(bytes(message.body, "latin1") if isinstance(message.body, str) else message.body)
        self.on_message(message)


@pytest.fixture
def loop(broker_url: str) -> Iterator[Loop]:
    found = Loop(broker_url)
    yield found
    found.close()


def test_many_small_messages_come_whole_and_in_order(loop: Loop) -> None:
    sent = [b"%d" % number for number in range(2_000)]
    loop.publish(*sent)
    loop.until(lambda: len(loop.came) == len(sent))
    assert loop.came == sent


def test_messages_larger_than_a_gulp_and_than_a_frame_come_whole(loop: Loop) -> None:
    sizes = (0, 1, gulps.SIZE - 30, gulps.SIZE, 3 * gulps.SIZE, 131_072 - 8, 131_072, 1_000_000, 0, 5)
    sent = [bytes([number]) * size for number, size in enumerate(sizes)]
    loop.publish(*sent)
    loop.until(lambda: len(loop.came) == len(sent))
    assert loop.came == sent


def test_who_waits_for_an_answer_within_a_message_finds_it_behind_others_that_have_come(loop: Loop) -> None:
    sent = [b"%d" % number for number in range(300)]
    answers: list[int] = []

    def ask(message: Any) -> None:
        if not answers:
            answers.append(-1)  # what comes while it waits is dealt with meanwhile
            answers[0] = loop.channel.queue_declare(loop.queue, passive=True).message_count

    loop.on_message = ask
    loop.publish(*sent)
    loop.until(lambda: len(loop.came) == len(sent))
    assert sorted(loop.came) == sorted(sent)
    assert answers == [0]


def test_a_broker_that_hangs_up_is_an_error_and_not_silence(loop: Loop) -> None:
    loop.hub.propagate_errors = loop.connection.connection_errors
    loop.channel.send_method((10, 40), "ssb", ("/nowhere", "", False))  # to open twice is against all rules
    with pytest.raises(loop.connection.connection_errors):
        loop.until(lambda: False)
    assert not loop.connection.connected


def test_a_connection_that_was_closed_is_an_error(loop: Loop) -> None:
    inner = loop.connection.connection
    inner.collect()
    with pytest.raises(loop.connection.connection_errors):
        gulps.read(inner)
