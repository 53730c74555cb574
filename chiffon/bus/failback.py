"""Failing back: who was led to another broker of the list returns to the first that answers, where all the others go.

The brokers of a list need not know each other. Whoever rings at one, while its agents consume from another, waits.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable

import amqp

from chiffon.bus.confirms import Confirms
from chiffon.bus.connect import Connection, brokers_of, connect
from chiffon.bus.letters import Letter, Message
from chiffon.domain.errors import BrokerUnavailable

EVERY = 10.0
"""Seconds between two looks."""

_PATIENCE = 5.0


class Failback:
    """Looks for a broker that stands in the list before the one in use. Used by one thread, and never makes it wait.

    ``name``: what the broker's tools show of a look. ``looks``: how many in a row have to find one. Who consumes takes
    one more than who rings: then what was rung at the other broker meanwhile is still taken there.
    """

    def __init__(
        self, broker_url: str, *, name: str, looks: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._brokers = brokers_of(broker_url)
        self._name = name
        self._looks = looks
        self._clock = clock
        self._due = clock()
        self._found = 0
        """Looks in a row that have found one; written by the thread of a look."""
        self._looking: threading.Thread | None = None

    def is_due(self, place: int) -> bool:
        """Whether an earlier broker answers, as far as was seen. Call it about once a second.

        ``place``: of the one in use in the list, from 0; there, nobody looks at anything.
        """
        if place == 0:
            self._found = 0
            return False
        if self._looking is not None and self._looking.is_alive():
            return False
        if self._found >= self._looks:
            self._found = 0
            return True
        if self._clock() >= self._due:
            self._due = self._clock() + EVERY
            self._looking = threading.Thread(target=self._look, args=(place,), name=self._name, daemon=True)
            self._looking.start()
        return False

    def _look(self, place: int) -> None:
        try:
            with connect(";".join(self._brokers[:place]), name=self._name, patience=_PATIENCE) as connection:
                takes = takes_messages(connection)
        except (BrokerUnavailable, OSError, amqp.AMQPError):
            takes = False
        self._found = self._found + 1 if takes else 0


def takes_messages(connection: Connection) -> bool:
    """Whether the broker has heard of one: it may hang behind an open port, and under an alarm it only shakes hands."""
    letter = Letter("", f"chiffon.failback.{uuid.uuid4()}", Message(str(uuid.uuid4()), b""))  # it goes to no queue
    receipt = Confirms(connection).publish([letter], time.monotonic() + _PATIENCE)
    return letter.message.message_id in receipt.returned
