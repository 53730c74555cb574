"""A message in hand: it takes room in its queue's window until it is acknowledged or dead-lettered, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from chiffon.agent.hearing import Hearing
from chiffon.agent.traffic import Traffic

log = structlog.get_logger(__name__)


class Delivery:
    """One delivery. Used by the event loop only.

    ``connected``: whether the connection that brought it still stands; after that its word counts for nothing, and the
    broker delivers the message again. ``hearing``: whether the broker has heard what it was told of it.
    """

    def __init__(
        self,
        message: Any,
        traffic: Traffic,
        hearing: Hearing,
        connected: Callable[[], bool],
        errors: tuple[Any, ...],
    ) -> None:
        self.message = message
        self.hearing = hearing
        self.connected = connected
        self._traffic = traffic
        self._errors = errors
        self._answered = False
        traffic.delivered()

    def acknowledge(self, *_: Any) -> None:
        """It has done its duty."""
        if self._leave():
            self.message.ack_log_error(log, self._errors)

    def dead_letter(self, *_: Any) -> None:
        """It goes to `dlx_queue`."""
        if self._leave():
            self.message.reject_log_error(log, self._errors, requeue=False)
            self.hearing.want()

    def _leave(self) -> bool:
        if self._answered or not self.connected():
            return False
        self._answered = True
        self._traffic.done()
        return True
