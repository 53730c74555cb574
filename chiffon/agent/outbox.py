"""Events on their way out: those of a moment go in one message."""

from __future__ import annotations

import time
from typing import Any

WITHIN = 0.05
"""Seconds until an event is sent, at most."""

MOST = 500
"""Events in a message, at most."""


class Outbox:
    """The event dispatcher of Celery's ``consumer``, which has another one after each reconnect.

    Used by the event loop only.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._due_at = 0.0

    def put_by(self) -> None:
        """An event was put into the dispatcher's buffer."""
        now = time.monotonic()
        if now >= self._due_at:
            self._due_at = now + WITHIN
            self._consumer.event_dispatcher.buffer_limit = MOST
            self._consumer.hub.call_later(WITHIN, self.send)

    def send(self) -> None:
        """Send what was put by."""
        if self._consumer.event_dispatcher is not None:
            self._consumer.event_dispatcher.flush()

    def send_all(self) -> None:
        """Send what was put by, and what was only noted: the last words, and nobody to hear an answer."""
        if self._consumer.event_dispatcher is not None:
            self._consumer.event_dispatcher.send_noted()
