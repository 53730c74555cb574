"""A reject has arrived when the broker has answered what was asked after it, and not because a socket looks well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqp import spec

from chiffon.agent.hearing import Hearing


class Channel:
    """A channel whose broker answers when it is told to, in the order in which it was asked."""

    def __init__(self) -> None:
        self._pending: dict[Any, Callable[..., None]] = {}
        self.asked = 0

    def send_method(self, method: Any, *_: Any) -> None:
        assert method == spec.Channel.Flow
        self.asked += 1

    def answer(self) -> None:
        """As py-amqp does when an answer arrives."""
        self._pending.pop(spec.Channel.FlowOk)(True)


class Clock:
    """Seconds, one more each time somebody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def test_nothing_is_asked_while_nobody_wants_to_know() -> None:
    channel = Channel()
    Hearing().ask(channel)
    assert channel.asked == 0


def test_what_was_said_is_heard_once_a_later_question_is_answered() -> None:
    clock, channel = Clock(), Channel()
    hearing = Hearing(clock)
    hearing.want()
    said_at = clock()
    hearing.ask(channel)
    assert not hearing.since(said_at)
    channel.answer()
    assert hearing.since(said_at)


def test_an_answer_to_an_earlier_question_proves_nothing() -> None:
    clock, channel = Clock(), Channel()
    hearing = Hearing(clock)
    hearing.want()
    hearing.ask(channel)
    hearing.want()
    said_at = clock()
    channel.answer()
    assert not hearing.since(said_at)
    hearing.ask(channel)
    channel.answer()
    assert hearing.since(said_at)


def test_one_question_is_under_way_at_a_time() -> None:
    channel = Channel()
    hearing = Hearing(Clock())
    hearing.want()
    hearing.ask(channel)
    hearing.ask(channel)
    assert channel.asked == 1


def test_a_question_that_a_broken_connection_swallowed_is_asked_again_on_the_next() -> None:
    clock, broken, channel = Clock(), Channel(), Channel()
    hearing = Hearing(clock)
    hearing.want()
    said_at = clock()
    hearing.ask(broken)
    hearing.ask(channel)
    channel.answer()
    assert hearing.since(said_at)


def test_nothing_is_asked_once_all_is_heard() -> None:
    channel = Channel()
    hearing = Hearing(Clock())
    hearing.want()
    hearing.ask(channel)
    channel.answer()
    hearing.ask(channel)
    assert channel.asked == 1
