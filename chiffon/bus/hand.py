"""A hand in `dlx_queue`: it takes letters, and gives back what it still holds, in order."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import amqp
from amqp import spec

from chiffon.bus.connect import Connection
from chiffon.bus.postmortem import Coroner, DeadLetter
from chiffon.bus.topology import DLX_QUEUE

_AT_ONCE = 16  # letters acknowledged or given back before we make sure that the broker has done it
_GIVE_BACK = 1.0  # seconds to wait for that; somebody else may consume them
_PAUSE = 0.001
_COUNTS = {"x-delivery-count", "x-acquired-count"}  # headers that a quorum queue adds to what was given back


class Hand:
    """A channel that takes letters, and gives back at the end what it still holds, in order."""

    def __init__(self, connection: Connection) -> None:
        self._channel = connection.channel()
        self._channel.auto_decode = False  # py-amqp would turn bodies to text by whatever codec their senders named
        self._held: dict[int, None] = {}  # delivery tags, in order
        self._ahead: deque[Any] = deque()  # taken, and not yet read
        self._newest: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, amqp.AMQPError):  # a dead connection gives back by itself
            self._give_back()
            self._channel.close()

    def letters(self, limit: int) -> Iterator[tuple[int, DeadLetter]]:
        """The first ``limit`` letters with their delivery tags, as the queue has them."""
        coroner = Coroner()
        for _ in range(limit):
            raw = self._ahead.popleft() if self._ahead else self._get()
            if raw is None:
                return
            yield raw.delivery_tag, coroner.examine(raw)

    def acknowledge(self, tags: Sequence[int]) -> None:
        """Let these letters go."""
        for start in range(0, len(tags), _AT_ONCE):
            for tag in tags[start : start + _AT_ONCE]:
                self._channel.basic_ack(tag)
                del self._held[tag]
            # A get is answered when all before it is done. Without one, a channel that has 32 commands to a quorum
            # queue under way gathers the next ones, and forgets them when it is closed: the letters would be back.
            if len(tags) > 1 and (raw := self._get()) is not None:
                self._ahead.append(raw)

    def ready(self) -> int:
        """How many letters lie in the queue, without those held here."""
        return int(self._channel.queue_declare(DLX_QUEUE, passive=True).message_count)

    def _get(self) -> Any:
        raw = self._newest = self._channel.basic_get(DLX_QUEUE)
        if raw is not None:
            self._held[raw.delivery_tag] = None
        return raw

    def _returned_before(self) -> bool:
        """Whether the newest letter in hand is one that a quorum queue was given back before."""
        headers = self._newest and self._newest.properties.get("application_headers")
        return bool(headers and _COUNTS & headers.keys() and self._newest.delivery_info["redelivered"])

    def _give_back(self) -> None:
        # A quorum queue puts what comes back behind all that came back before: to keep the order, have that in hand.
        while self._returned_before():
            self._get()
        # A few at a time: what a channel gathers after 32 commands to a quorum queue loses its order.
        tags, ready = list(self._held), self.ready()
        for start in range(0, len(tags), _AT_ONCE):
            for tag in tags[start : start + _AT_ONCE]:
                self._channel.send_method(spec.Basic.Nack, "Lbb", (tag, False, True))
            self._await(ready + min(start + _AT_ONCE, len(tags)))

    def _await(self, ready: int) -> None:
        deadline = time.monotonic() + _GIVE_BACK
        while self.ready() < ready and time.monotonic() < deadline:
            time.sleep(_PAUSE)
