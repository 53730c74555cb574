"""Faults of what arrives: bytes that are no work, and real messages once more."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field

import amqp

from tests.chaos.incidents import Note
from tests.chaos.plan import Fault
from tests.chaos.stand import Stand
from tests.e2e.messages import Bad, ill_formed, malformed
from tests.e2e.raw_amqp import Delivery

GARBAGE_HEADER = "chaos_garbage"
"""Names a piece of garbage, so that its dead letter can be known."""

_AT_ONCE = 8
_HEARD_AT_MOST = 300
_AWAY = (OSError, amqp.AMQPError)


@dataclass(frozen=True)
class Thrown:
    """A piece of garbage that the broker has confirmed, or may have taken. ``at``: seconds since the epoch."""

    name: str
    what: str
    at: float
    confirmed: bool


@dataclass
class Rubbish:
    """What was thrown, and what was overheard."""

    thrown: list[Thrown] = field(default_factory=list)
    heard: deque[Delivery] = field(default_factory=lambda: deque(maxlen=_HEARD_AT_MOST))


class Tap:
    """Overhears what is published to the exchange `work`, for as long as there is a broker."""

    def __init__(self, stand: Stand, rubbish: Rubbish) -> None:
        self._stand = stand
        self._rubbish = rubbish
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._over.set()
        self._thread.join(15)

    def _run(self) -> None:
        while not self._over.wait(0.5):
            with contextlib.suppress(*_AWAY):
                self._listen()

    def _listen(self) -> None:
        # Not before somebody consumes: on a broker that was wiped the tap would be the only queue there is, and take
        # what is published to no other; its publisher would have a confirm, where he must be told of no route.
        if not self._stand.consumers():
            return
        with self._stand.amqp.channel() as channel:
            channel.exchange_declare("work", "direct", durable=True, auto_delete=False)
            queue = channel.queue_declare(exclusive=True).queue
            channel.queue_bind(queue, "work", "work_queue")
            while not self._over.wait(0.2):
                while (message := channel.basic_get(queue, no_ack=True)) is not None:
                    self._rubbish.heard.append(_copy(message))


def throw_garbage(stand: Stand, rubbish: Rubbish, fault: Fault, note: Note) -> None:
    """Publish bytes that are no work."""
    dice = random.Random(fault.pick)
    for bad in dice.choices(_kinds(), k=_AT_ONCE):
        name = str(uuid.UUID(int=dice.getrandbits(128)))
        headers = {**bad.headers, GARBAGE_HEADER: name}
        began = time.time()
        try:
            stand.amqp.publish(bad.body, headers=headers, **bad.properties)
        except _AWAY:
            rubbish.thrown.append(Thrown(name, bad.what, began, confirmed=False))
            note.said = "the broker did not take all"
        else:
            rubbish.thrown.append(Thrown(name, bad.what, time.time(), confirmed=True))


def double(stand: Stand, rubbish: Rubbish, fault: Fault, note: Note) -> None:
    """Publish real messages once more, some of them twice."""
    dice = random.Random(fault.pick)
    heard = list(rubbish.heard)
    if not heard:
        note.happened = False
        return
    for message in dice.choices(heard, k=2 * _AT_ONCE):
        with contextlib.suppress(*_AWAY):
            stand.amqp.publish(message.body, headers=message.headers, **message.properties)


@functools.cache
def _kinds() -> tuple[Bad, ...]:
    return (*malformed(), *ill_formed())


def _copy(message: amqp.Message) -> Delivery:
    properties = dict(message.properties)
    headers = properties.pop("application_headers", {})
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
    return Delivery(body, headers, properties)
