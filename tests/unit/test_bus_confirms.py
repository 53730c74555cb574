"""What the broker says of letters that are under way together, in any order it may say it."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import amqp
import pytest

from chiffon.bus.confirms import WINDOW, Confirms, Receipt, publish_apart
from chiffon.bus.letters import Letter, Message
from tests.bells import ids, letters
from tests.frames import publishes

Word = Callable[["Channel"], None]


class Channel:
    """What `Confirms` uses of a channel: it keeps what was published and passes on what the broker says."""

    channel_id = 1

    def __init__(self) -> None:
        self.events: dict[str, set[Callable[..., None]]] = defaultdict(set)
        self.published: list[amqp.Message] = []

    def confirm_select(self) -> None: ...

    def say(self, event: str, *arguments: Any) -> None:
        for callback in self.events[event]:
            callback(*arguments)


class Broker:
    """A connection to a broker that follows a script: one word at each `drain_events`, then it hangs."""

    frame_max = 131072
    blocked = False
    bytes_sent = 0

    def __init__(self, *script: Word) -> None:
        self._script = list(script)
        self._channel = Channel()
        self.dropped = False
        self.transport = self

    def write(self, frames: bytes) -> None:
        self._channel.published += [message for _, message in publishes(frames)]

    def channel(self) -> Channel:
        return self._channel

    def drain_events(self, timeout: float) -> None:
        if not self._script:
            raise TimeoutError
        self._script.pop(0)(self._channel)

    @contextlib.contextmanager
    def having_timeout(self, timeout: float) -> Iterator[None]:
        yield

    def drop(self) -> None:
        self.dropped = True


def ack(tag: int, multiple: bool = False) -> Word:
    return lambda channel: channel.say("basic_ack", tag, multiple)


def nack(tag: int, multiple: bool = False) -> Word:
    return lambda channel: channel.say("basic_nack", tag, multiple)


def give_back(number: int) -> Word:
    return lambda channel: channel.say("basic_return", None, "work", "x", channel.published[number])


def close(channel: Channel) -> None:
    raise amqp.NotFound("no exchange")


def break_off(channel: Channel) -> None:
    raise ConnectionResetError("reset by peer")


def publish(sent: Sequence[Letter], *script: Word) -> Receipt:
    return Confirms(Broker(*script)).publish(sent, time.monotonic() + 5)  # type: ignore[arg-type]


def test_a_word_about_many_counts_for_all_before_it() -> None:
    sent = letters(5)
    receipt = publish(sent, ack(2), nack(3, True), ack(5, True))
    assert receipt.confirmed == ids(sent[1], sent[3], sent[4])
    assert receipt.unconfirmed == receipt.refused == ids(sent[0], sent[2])
    assert receipt.usable


def test_a_return_outranks_the_ack_that_follows_it_inside_a_multiple() -> None:
    sent = letters(3)
    receipt = publish(sent, give_back(1), ack(3, True))
    assert receipt.confirmed == ids(sent[0], sent[2])
    assert receipt.returned == ids(sent[1])
    assert receipt.unconfirmed == frozenset()


def test_a_return_that_comes_late_says_nothing_of_the_next_call() -> None:
    first, second = letters(2)
    confirms = Confirms(Broker(ack(1), give_back(0), ack(2)))  # type: ignore[arg-type]
    assert confirms.publish([first], time.monotonic() + 5).confirmed == ids(first)
    assert confirms.publish([second], time.monotonic() + 5) == Receipt(confirmed=ids(second))


def test_a_closed_channel_confirms_nothing_more() -> None:
    sent = letters(3)
    receipt = publish(sent, ack(1), close)
    assert receipt.confirmed == ids(sent[0])
    assert receipt.unconfirmed == ids(sent[1], sent[2])
    assert (receipt.usable, receipt.closed) == (False, True)


@pytest.mark.parametrize(("end", "why"), [(break_off, "reset by peer"), (None, "did not answer in time")])
def test_a_broker_that_breaks_off_or_hangs_leaves_the_rest_unconfirmed(end: Word | None, why: str) -> None:
    sent = letters(3)
    receipt = publish(sent, *([ack(1)] if end is None else [ack(1), end]))
    assert receipt.confirmed == ids(sent[0])
    assert receipt.unconfirmed == ids(sent[1], sent[2])
    assert why in receipt.why
    assert (receipt.usable, receipt.closed) == (False, False)


def test_an_alarm_ends_the_wait_at_once_and_keeps_the_channel() -> None:
    broker = Broker(ack(1))
    confirms = Confirms(broker)  # type: ignore[arg-type]
    sent = letters(3)
    broker._script.append(lambda channel: setattr(broker, "blocked", True))
    receipt = confirms.publish(sent, time.monotonic() + 5)
    assert receipt.confirmed == ids(sent[0])
    assert "alarm" in receipt.why
    assert receipt.usable


def test_a_late_word_about_an_earlier_call_is_not_about_this_one() -> None:
    broker = Broker()
    confirms = Confirms(broker)  # type: ignore[arg-type]
    earlier, now = letters(4)[:2], letters(4)[2:]
    confirms.publish(earlier, time.monotonic() + 5)
    broker._script += [ack(1), nack(2), ack(3)]
    receipt = confirms.publish(now, time.monotonic() + 5)
    assert receipt.confirmed == ids(now[0])
    assert receipt.unconfirmed == ids(now[1])
    assert receipt.refused == frozenset()


def test_no_more_than_a_window_is_under_way() -> None:
    broker = Broker()
    Confirms(broker).publish(letters(WINDOW + 10), time.monotonic() + 5)  # type: ignore[arg-type]
    assert len(broker.channel().published) == WINDOW


def test_letters_go_in_few_writes_and_what_was_not_written_when_the_broker_blocks_takes_no_number() -> None:
    broker = Broker()
    writes: list[int] = []
    broker.write = lambda frames: writes.append(len(publishes(frames)))  # type: ignore[method-assign]
    confirms = Confirms(broker)  # type: ignore[arg-type]
    broker._script = [lambda channel: setattr(broker, "blocked", True)]
    first, now = letters(2 * WINDOW)[: WINDOW + 10], letters(2 * WINDOW)[WINDOW + 10 :]
    receipt = confirms.publish(first, time.monotonic() + 5)
    assert sum(writes) == WINDOW
    assert len(writes) <= WINDOW // 100
    assert receipt.unconfirmed == ids(*first)
    broker.blocked = False
    broker._script = [ack(WINDOW, True), ack(WINDOW + 1)]
    assert confirms.publish(now, time.monotonic() + 5).confirmed == ids(now[0])


def odd(message_id: str = "odd", **fields: Any) -> Letter:
    place = {"exchange": fields.pop("exchange", "work"), "routing_key": fields.pop("routing_key", "work_queue")}
    return Letter(**place, message=Message(message_id, b"", **fields))


@pytest.mark.parametrize(
    "letter",
    [
        odd(headers={"n": 2**70}),
        odd(headers={"o": object()}),
        odd(headers={"k" * 300: 1}),
        odd(headers={"large": "x" * 200_000}),
        odd(properties={"priority": 999}),
        odd(properties={"correlation_id": "x" * 300}),
        odd(message_id="x" * 300),
        odd(routing_key="x" * 300),
        odd(exchange="ü" * 200),
    ],
)
def test_a_letter_that_amqp_cannot_say_is_refused_before_a_byte_of_it_and_its_neighbours_go(letter: Letter) -> None:
    first, last = letters(2)
    broker = Broker(ack(2, True))
    receipt = Confirms(broker).publish([first, letter, last], time.monotonic() + 5)  # type: ignore[arg-type]
    assert receipt.confirmed == ids(first, last)
    assert receipt.unconfirmed == receipt.refused == ids(letter)
    assert receipt.unsayable == {letter.message.message_id: receipt.why}
    assert letter.message.message_id in receipt.why
    assert receipt.usable
    assert not broker.dropped


def test_what_amqp_cannot_say_is_known_though_the_channel_is_closed_over_another() -> None:
    sent = letters(4)
    unsayable = {sent[3].message.message_id: "no words"}

    def attempt(batch: Sequence[Letter]) -> Receipt:
        refused = ids(*batch) & ids(sent[3])
        closed = bool(ids(*batch) & ids(sent[0]))
        said = {message_id: unsayable[message_id] for message_id in refused}
        return Receipt(unconfirmed=ids(*batch), refused=refused, unsayable=said, usable=not closed, closed=closed)

    assert publish_apart(attempt, sent).unsayable == unsayable


def test_half_a_frame_is_the_end_of_a_connection() -> None:
    broker = Broker()

    def stall(frames: bytes) -> None:
        raise TimeoutError

    broker.write = stall  # type: ignore[method-assign]
    receipt = Confirms(broker).publish(letters(1), time.monotonic() + 5)  # type: ignore[arg-type]
    assert broker.dropped
    assert not receipt.usable


@pytest.mark.parametrize("poisonous", [set(), {0}, {6}, {0, 1}, {2, 5}, set(range(7))])
def test_a_letter_over_which_channels_are_closed_is_found_and_delays_no_other(poisonous: set[int]) -> None:
    sent = letters(7)
    poison = ids(*(sent[number] for number in poisonous))

    def attempt(batch: Sequence[Letter]) -> Receipt:
        if found := ids(*batch) & poison:
            return Receipt(unconfirmed=ids(*batch), why=f"closed over {len(found)}", usable=False, closed=True)
        return Receipt(confirmed=ids(*batch))

    receipt = publish_apart(attempt, sent)
    assert receipt.confirmed == ids(*sent) - poison
    assert receipt.unconfirmed == poison
    assert receipt.why.startswith("closed over") == bool(poison)
