"""The intake: what has come from the broker, how much of it may be in hand, and what the broker is told of it.

An agent holds as much as it has slots for. A task that may run for long takes up a slot; one whose like have taken a
few milliseconds lately takes up a part, so that there is enough at hand to keep every slot busy for
``CHIFFON_WORK_AHEAD`` seconds.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from chiffon.agent.delivery import Delivery
from chiffon.agent.hearing import Hearing
from chiffon.agent.pace import Pace
from chiffon.agent.reading import Direct, Doorbell
from chiffon.agent.receipts import Receipts
from chiffon.agent.traffic import Traffic
from chiffon.agent.window import Window

_ROUNDING = 1e-6

What = Doorbell | Direct
"""What a delivery asks for."""


class Intake:
    """Used by the event loop only, but for ``traffic``.

    ``consumer``: Celery's. ``slots``: what may be in hand. ``ack_after``: seconds for which a message may wait here.
    """

    def __init__(
        self, consumer: Any, slots: int, pace: Pace, traffic: Traffic, hearing: Hearing, *, ack_after: float
    ) -> None:
        self._consumer = consumer
        self._slots = slots
        self._pace = pace
        self._traffic = traffic
        self._ack_after = ack_after
        self._hearing = hearing
        self._window = Window(consumer, slots)
        self._receipts = Receipts(self._acknowledge)
        self._connections = 0
        self._stands = partial(self._is_connection, 0)
        """Whether the connection of now still stands, for whoever asks later."""
        self._load = 0.0
        """Slots that what is offered and claimed takes up."""
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, Delivery, What]] = []
        """What is not offered yet, the most urgent first."""

    # The connection

    def connected(self) -> None:
        """Consuming begins, with nothing in hand."""
        self._window.opened()
        self._traffic.make_room(self._window.size)
        self._traffic.connected()

    def disconnected(self) -> None:
        """The connection is gone, and what it brought will come again."""
        self._connections += 1
        self._stands = partial(self._is_connection, self._connections)
        self._receipts = Receipts(self._acknowledge)  # the next channel knows none of these tags, and closes over one
        self._waiting.clear()
        self._traffic.disconnected()

    def _is_connection(self, generation: int) -> bool:
        return self._connections == generation

    # What comes

    def take(self, message: Any) -> Delivery:
        """A message has come."""
        return Delivery(
            message,
            self._traffic,
            self._hearing,
            self._receipts,
            self._stands,
            self._consumer.connection_errors,
        )

    def wait(self, delivery: Delivery, what: What) -> None:
        """It can be worked on, when there is a slot for it."""
        priority = delivery.message.properties.get("priority")
        urgency = priority if isinstance(priority, int) else 0
        heapq.heappush(self._waiting, (-urgency, next(self._order), delivery, what))

    def admit(self) -> Iterator[tuple[Delivery, What]]:
        """What there is a slot for now; each takes it up until `leave`.

        What was acknowledged early makes room at the broker, and none here.
        """
        while self._waiting:
            delivery, what = self._waiting[0][2:]
            delivery.share = self._pace.share(_work_type(what))
            if self._load + delivery.share > self._slots + _ROUNDING:
                return
            heapq.heappop(self._waiting)
            self._load += delivery.share
            yield delivery, what

    def leave(self, delivery: Delivery) -> None:
        """What a delivery had brought is not in hand any more."""
        self._load = max(0.0, self._load - delivery.share)

    # What the broker is told

    def flush(self) -> None:
        """Acknowledge what is done."""
        if self._consumer.task_consumer is not None:
            with contextlib.suppress(*self._consumer.connection_errors):  # whoever reads next finds it broken
                self._receipts.flush()

    def look(self, in_hand: Sequence[float]) -> None:
        """See to the window, and ask what the broker has heard, every moment or so.

        ``in_hand``: the parts of slots that the claimed tasks take up.
        """
        if self._consumer.task_consumer is not None:
            with contextlib.suppress(*self._consumer.connection_errors):
                if self._traffic.has_room:
                    self._hearing.want()
                self._hearing.ask(self._consumer.task_consumer.channel)
                self._fit(in_hand)
                self._put_back_surplus()

    def _fit(self, in_hand: Sequence[float]) -> None:
        """Have as many messages in hand as there is work for, by what is at hand now."""
        shares = [self._pace.share(_work_type(what)) for *_, what in self._waiting] + list(in_hand)
        if shares and self._window.fit(round(self._slots * len(shares) / sum(shares))):
            self._traffic.make_room(self._window.size)

    def _put_back_surplus(self) -> None:
        """Give back what is too much, for other agents, and what has waited for so long that it must come anew.

        (RabbitMQ would close the channel over a message that it has handed out half an hour ago.)
        """
        surplus = len(self._receipts) - self._window.size
        stale = time.monotonic() - self._ack_after
        kept = []
        for entry in sorted(self._waiting, reverse=True):
            if surplus > 0 or entry[2].came_at <= stale:
                entry[2].put_back()
                surplus -= 1
            else:
                kept.append(entry)
        heapq.heapify(kept)
        self._waiting = kept

    def put_back_waiting(self) -> None:
        """Give back all that is not offered, for other agents; once nothing more comes, or it would come back here."""
        for *_, delivery, _what in self._waiting:
            delivery.put_back()
        self._waiting.clear()

    def _acknowledge(self, tag: int, multiple: bool) -> None:
        self._consumer.task_consumer.channel.basic_ack(tag, multiple)


def _work_type(what: What) -> str:
    return what.work_type if isinstance(what, Doorbell) else what.task.work_type
