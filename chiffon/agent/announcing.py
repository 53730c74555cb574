"""Events for whoever listens: while nobody does, those of tasks are only noted, and the broker is asked time and again.

Flower and `celery events` bind queues to the exchange of events, and no agent is told. To make and encode an event and
have the broker throw it away is a sixth of what a short task costs its agent. So events are published `mandatory`:
where no queue takes them, the broker returns them. From then on they are noted, and every moment an empty message asks
whether it comes back, too. Once it does not, all that was noted since the last question is made and sent: whoever has
bound a queue misses nothing.
"""

from __future__ import annotations

import time
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher

from chiffon.agent.hearing import ask_of

MULTI = "task.multi"
"""The routing key of a message that brings events of tasks."""

MOST_NOTED = 20_000
"""Events that are noted, at most, while the broker does not answer; the oldest are forgotten first."""


class Note(NamedTuple):
    """An event that is not made yet: its type, when it was (Unix time), and its fields."""

    type: str
    at: float
    fields: dict[str, Any]


class Dispatcher(EventDispatcher):
    """Celery's dispatcher of events, on a connection that the event loop reads. Threads of the pool send, too."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._noted: list[Note] = []
        self._is_heard = True
        """Whether somebody listens, as far as is known."""
        self._asked_about: int | None = None
        """How many of the notes the question covers that is under way."""
        self._came_back = False
        super().__init__(*args, **options)

    def enable(self) -> None:
        """Begin to send, and hear what the broker returns."""
        super().enable()
        if self.buffer_group:
            self.producer.channel.events["basic_return"].add(self._on_return)

    def send(self, type: str, blind: bool = False, **fields: Any) -> Any:  # noqa: A002 -- as Celery has it
        """Send an event, or note it."""
        if self._is_heard or not self._is_of_task(type):
            return super().send(type, blind=blind, **fields)
        self._noted.append(Note(type, time.time(), fields))
        if len(self._noted) > MOST_NOTED:
            self._forget(len(self._noted) // 2)
        self.on_send_buffered()
        return None

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Send what was put by; of what was only noted, ask whether anybody wants it."""
        super().flush(errors, groups)
        if self._noted and self._asked_about is None and self.enabled:
            self._ask()

    def send_noted(self) -> None:
        """Make and send what was noted, whether or not anybody wants it."""
        noted, self._noted = self._noted, []
        self._is_heard, self._asked_about = True, None
        for note in noted:
            super().send(note.type, timestamp=note.at, **note.fields)
        super().flush()

    def extend_buffer(self, other: Any) -> None:
        """Take over what another one has not sent."""
        super().extend_buffer(other)
        self._noted += getattr(other, "_noted", [])

    def _is_of_task(self, type: str) -> bool:  # noqa: A002
        group = type.partition("-")[0]
        return self.enabled and group in self.buffer_group and (not self.groups or group in self.groups)

    def _publish(self, event: Any, producer: Any, routing_key: str, **options: Any) -> Any:
        if producer is not None and routing_key == MULTI:
            producer = SimpleNamespace(publish=partial(producer.publish, mandatory=True))
        return super()._publish(event, producer, routing_key, **options)

    def _ask(self) -> None:
        with self.mutex:
            if self._closed or self.producer.channel.connection is None:  # given up: the next one takes the notes over
                return
            self._came_back = False
            self._publish([], self.producer, MULTI)
            ask_of(self.producer.channel, self._on_answer)
            self._asked_about = len(self._noted)

    def _on_return(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        if routing_key != MULTI:
            return
        self._is_heard = False
        if len(message.body) == len("[]"):  # and not events that were sent before the question
            self._came_back = True

    def _on_answer(self, *_: Any) -> None:
        """All that the broker returned of what was published before the question, it has returned by now."""
        if self._asked_about is None:
            return
        if not self._came_back:
            self.send_noted()
            return
        self._forget(self._asked_about)
        self._asked_about = None
        if self._noted:
            self.on_send_buffered()

    def _forget(self, many: int) -> None:
        del self._noted[:many]
        if self._asked_about is not None:
            self._asked_about = max(0, self._asked_about - many)


class LedgerEvents(Events):
    """What ``app.events`` is."""

    dispatcher_cls = Dispatcher
