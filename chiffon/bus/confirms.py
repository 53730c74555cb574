"""Publishing many letters at once, and what the broker says of each: taken, refused, unroutable, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import amqp

from chiffon.bus.connect import Connection
from chiffon.bus.letters import Letter
from chiffon.bus.sealing import seal
from chiffon.courtesy import courteously
from chiffon.domain.errors import MalformedMessage

WINDOW = 2_000
"""Letters under way at once: enough to hide the broker's fsync, few enough to be read back when it is slow."""

SILENCE = 10.0
"""Seconds: a broker that neither takes nor says anything for so long is not waited for until the deadline."""

BLOCKED = "RabbitMQ takes no messages: a memory or disk alarm"
_AT_ONCE = 65_536
"""Bytes after which letters are written, or sooner: a call of the system costs more than to encode a letter."""


@dataclass(frozen=True)
class Receipt:
    """What became of each letter, by ``message_id``.

    ``confirmed``: the broker has it, on disk. ``returned``: no queue takes it. ``unconfirmed``: everything else; it
    may have arrived or not. ``refused``: those of the unconfirmed that the broker, or AMQP's own limits, said no to.
    ``unsayable``: those of the refused that AMQP has no words for, and why: to publish them again is in vain.
    ``why``: one sentence about what went wrong last. ``usable``: whether the channel can be used again.
    ``closed``: whether the broker closed it over one of the letters, without saying which.
    """

    confirmed: frozenset[str] = frozenset()
    returned: frozenset[str] = frozenset()
    unconfirmed: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    unsayable: Mapping[str, str] = field(default_factory=dict)
    why: str = ""
    usable: bool = True
    closed: bool = False

    def __or__(self, other: Receipt) -> Receipt:
        """Both together; ``other`` is the later one."""
        return Receipt(
            self.confirmed | other.confirmed,
            self.returned | other.returned,
            self.unconfirmed | other.unconfirmed,
            self.refused | other.refused,
            {**self.unsayable, **other.unsayable},
            other.why or self.why,
            other.usable,
            other.closed,
        )


def nothing_taken(letters: Iterable[Letter], why: str) -> Receipt:
    """The receipt of letters that were not even written."""
    return Receipt(unconfirmed=frozenset(letter.message.message_id for letter in letters), why=why)


class Confirms:
    """A channel in confirm mode. Raises OSError or AMQPError when it cannot be opened. Not thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel = connection.channel()
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._on_ack)
        self._channel.events["basic_nack"].add(self._on_nack)
        self._channel.events["basic_return"].add(self._on_return)
        self._tag = 0  # the broker numbers the publishes of a channel from 1
        self._unwritten: list[tuple[str, bytes]] = []
        self._waiting: dict[int, str] = {}
        self._acked: set[str] = set()
        self._returned: set[str] = set()
        self._refused: set[str] = set()
        self._unsayable: dict[str, str] = {}

    def publish(self, letters: Sequence[Letter], deadline: float) -> Receipt:
        """Publish ``letters`` (ids all different) and wait for the broker's word.

        ``deadline``: by the monotonic clock, in seconds. Never raises for what the broker or the network does: the
        receipt says it. When it says that the channel is not usable, the connection is to be dropped.
        """
        for heard in (self._unwritten, self._waiting, self._acked, self._returned, self._refused, self._unsayable):
            heard.clear()  # a late word about an earlier call is of no use to anybody
        why, usable, closed = "", True, False
        try:
            why = self._exchange(letters, deadline)
        except amqp.ChannelError as error:
            # Over one letter (no such exchange, too large) the broker closes the channel: no ack comes any more.
            why, usable, closed = f"RabbitMQ closed the channel: {error.reply_text}", False, True
        except TimeoutError:
            why, usable = "RabbitMQ did not answer in time", False
        except (OSError, amqp.AMQPError) as error:
            why, usable = f"the connection to RabbitMQ broke: {error}", False
        return self._receipt(letters, why, usable, closed)

    def _exchange(self, letters: Sequence[Letter], deadline: float) -> str:
        why, size = "", 0
        for letter in courteously(letters):
            try:
                frames = seal(letter, channel=self._channel.channel_id, frame_max=self._connection.frame_max)
            except MalformedMessage as error:
                self._refused.add(letter.message.message_id)
                why = self._unsayable[letter.message.message_id] = str(error)
                continue
            while len(self._waiting) + len(self._unwritten) >= WINDOW and not self._connection.blocked:
                self._hear(deadline)
            if self._connection.blocked:
                return BLOCKED
            self._unwritten.append((letter.message.message_id, frames))
            size += len(frames)
            if size >= _AT_ONCE:
                self._write(deadline)
                size = 0
        self._write(deadline)
        while self._waiting and not self._connection.blocked:
            self._hear(deadline)
        if self._waiting:
            return BLOCKED
        return "RabbitMQ refused it: a queue is full, or could not write" if self._refused and not why else why

    def _write(self, deadline: float) -> None:
        # Not py-amqp's `basic_publish`: that one reads, without waiting, before it writes, and when half a frame has
        # arrived it spins. Here `_hear` alone reads.
        if not self._unwritten:
            return
        try:
            with self._connection.transport.having_timeout(_left(deadline)):
                self._connection.transport.write(b"".join([frames for _, frames in self._unwritten]))
        except OSError:
            self._connection.drop()  # half a frame may be written: nothing more can be said on this socket
            raise
        self._connection.bytes_sent += 1  # a sign of life, which spares the next heartbeat
        for message_id, _ in self._unwritten:
            self._tag += 1
            self._waiting[self._tag] = message_id
        self._unwritten.clear()

    def _hear(self, deadline: float) -> None:
        self._write(deadline)
        self._connection.drain_events(timeout=_left(deadline))

    def _receipt(self, letters: Sequence[Letter], why: str, usable: bool, closed: bool) -> Receipt:
        # An unroutable message gets a return and then a positive ack, perhaps inside a `multiple`: the return counts.
        confirmed = frozenset(self._acked - self._returned)
        everything = frozenset(letter.message.message_id for letter in letters)
        returned = everything & self._returned  # a word about an earlier call may come late
        if returned and not why:
            why = "no queue takes it"
        return Receipt(
            confirmed,
            returned,
            everything - confirmed - returned,
            frozenset(self._refused),
            dict(self._unsayable),
            why,
            usable,
            closed,
        )

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._acked.update(self._take(tag, multiple))

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._refused.update(self._take(tag, multiple))

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: amqp.Message) -> None:
        self._returned.add(str(message.properties.get("message_id")))

    def _take(self, tag: int, multiple: bool) -> list[str]:
        """The letters that a word of the broker is about; none when it is about an earlier call."""
        if not multiple:
            found = self._waiting.pop(tag, None)
            return [] if found is None else [found]
        taken = []
        while self._waiting and (first := next(iter(self._waiting))) <= tag:
            taken.append(self._waiting.pop(first))
        return taken


def publish_apart(attempt: Callable[[Sequence[Letter]], Receipt], letters: Sequence[Letter]) -> Receipt:
    """Publish; when the broker closes the channel over one letter, find it by halves, so that it delays no neighbour.

    A letter that was written before the channel closed may be published twice.
    """
    receipt, batches = Receipt(), [letters]
    while batches:
        batch = batches.pop()
        heard = attempt(batch)
        open_still = [letter for letter in batch if letter.message.message_id in heard.unconfirmed - heard.refused]
        if heard.closed and len(open_still) > 1:
            middle = len(open_still) // 2
            batches += [open_still[middle:], open_still[:middle]]
            heard = Receipt(heard.confirmed, heard.returned, heard.refused, heard.refused, heard.unsayable, heard.why)
        receipt |= heard
    return receipt


def _left(deadline: float) -> float:
    """Seconds until ``deadline``, `SILENCE` at most. Raises TimeoutError when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(left, SILENCE)
