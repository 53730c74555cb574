"""Streams: answers that go on for as long as there is something to tell. Each holds a thread of the server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from chiffon.api import kinds
from chiffon.api.problems import ApiProblem

SERVER_ENDS = threading.Event()
"""Set when this process is to end: a stream that is cut there goes on at another, from where it was."""


class Streams:
    """Those of one process. ``most``: of what asks for more the caller hears that it is busy; dispatching goes on."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._open = 0

    def check_room(self) -> None:
        """Raise ApiProblem (503) if there are as many as there may be."""
        if self._open >= self._most:
            raise ApiProblem(kinds.TOO_MANY_STREAMS, f"{self._open} are open. {kinds.TOO_MANY_STREAMS.advice}")

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one, for as long as it is open."""
        with self._lock:
            self._open += 1
        try:
            yield
        finally:
            with self._lock:
                self._open -= 1
