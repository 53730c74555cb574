"""Returning to an earlier broker of the list once it answers again: who rings does, and the agent is to meet them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog

from chiffon.agent.traffic import Traffic
from chiffon.bus.failback import Failback

log = structlog.get_logger(__name__)

LOOKS = 2
"""Looks that have to find one: those who ring have left the other broker by then."""

QUIET = 2.0
"""Seconds without a message in the queues after which they are taken to be empty for good."""

AT_MOST = 60.0
"""Seconds that the agent stays for what is in them: those who ring are elsewhere, and their work waits meanwhile."""


class Returning:
    """Used by the event loop only. ``consumer``: Celery's."""

    def __init__(
        self, consumer: Any, broker_url: str, traffic: Traffic, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._consumer = consumer
        self._traffic = traffic
        self._clock = clock
        self._failback = Failback(broker_url, name=f"chiffon failback {consumer.hostname}", looks=LOOKS, clock=clock)
        self._wanted_at: float | None = None

    def look(self) -> None:
        """Leave the broker in use for an earlier one, if it is time to: its connection ends as if it had broken.

        What runs goes on then. Nobody may come back for what is left in its queues, so that is done first.
        """
        connection, hub = self._consumer.connection, self._consumer.hub
        if connection is None or hub is None or connection.place == 0:
            self._wanted_at = None
            return
        now = self._clock()
        if self._failback.is_due(connection.place) and self._wanted_at is None:
            self._wanted_at = now
        if self._wanted_at is None:
            return
        if self._traffic.has_had_room(QUIET) or now - self._wanted_at >= AT_MOST:
            self._wanted_at = None
            log.info("broker_failback", reason="a broker that stands earlier in CHIFFON_BROKER_URL answers again")
            hub.call_later(0, self._leave, connection)  # where Celery minds what is raised

    def _leave(self, connection: Any) -> None:
        if self._consumer.connection is connection:
            raise ConnectionResetError("left for a broker that stands earlier in CHIFFON_BROKER_URL")
