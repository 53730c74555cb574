"""Patience with a Postgres that has taken a question and does not answer: after a while its connection is cut.

libpq waits for an answer without an end. Where the server's host is gone, the kernel notices; where the server itself
hangs, its kernel goes on acknowledging, and nobody does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2.extensions

ANSWER_WITHIN = 10.0
"""Seconds that the server has for a statement: few take long, and none waits for a lock for long.

What is long to say has more (see `PER_SECOND`): a large result would be cut off each time that it is settled.
"""

PER_SECOND = 500_000
"""Bytes of a statement's values for which the server has a second more, over whatever link they come."""

_TICK = 0.5


class Patience:
    """Watches whoever waits, in a thread of its own. Thread-safe; a forked child has one that watches nobody."""

    def __init__(self, seconds: float = ANSWER_WITHIN) -> None:
        self._ticks = round(seconds / _TICK)
        self._begin()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[object, list[int]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def waiting(self, connection: Any, size: int = 0) -> Iterator[None]:
        """Wait for an answer on a psycopg2 connection; if it takes too long, that fails as if the server were gone.

        ``size``: bytes that it has to take.
        """
        waiter = object()
        with self._lock:
            # Ticks are counted, and not seconds: to a process that was stopped, and goes on, the clock has run.
            self._waiting[waiter] = [connection.fileno(), self._ticks + round(size / PER_SECOND / _TICK)]
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="patience", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._waiting[waiter]

    def _run(self) -> None:
        while True:
            time.sleep(_TICK)
            with self._lock:
                for entry in self._waiting.values():
                    entry[1] -= 1
                    if entry[1] == 0:
                        _cut(entry[0])


def _cut(descriptor: int) -> None:
    """End a socket for both sides, whoever is reading from it; it stays its owner's to close."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as twin:
        twin.shutdown(socket.SHUT_RDWR)


def _size(values: Iterable[Any]) -> int:
    """About how many bytes the values are: of texts, and of lists of them."""
    size = 0
    for value in values:
        if isinstance(value, str | bytes):
            size += len(value)
        elif isinstance(value, list):
            size += sum(len(text) for text in value if isinstance(text, str | bytes))
    return size


patience = Patience()
"""This process's."""


class PatientCursor(psycopg2.extensions.cursor):  # type: ignore[misc]  # psycopg2 has no types
    """A cursor whose statements are answered in time, or fail."""

    def execute(self, *arguments: Any) -> Any:
        """As psycopg2's."""
        size = _size(arguments[1].values()) if len(arguments) > 1 and isinstance(arguments[1], Mapping) else 0
        with patience.waiting(self.connection, size):
            return super().execute(*arguments)


class PatientConnection(psycopg2.extensions.connection):  # type: ignore[misc]  # psycopg2 has no types
    """A connection whose every wait has an end."""

    planned: dict[str, float] | None = None
    """The statements that its session has planned, and when; None: its session may be another's a moment later."""

    def commit(self) -> None:
        """As psycopg2's."""
        with patience.waiting(self):
            super().commit()

    def rollback(self) -> None:
        """As psycopg2's."""
        with patience.waiting(self):
            super().rollback()


PATIENT = {"connection_factory": PatientConnection, "cursor_factory": PatientCursor}
"""What psycopg2 is told to connect with."""
