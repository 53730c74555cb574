"""A mailbox on the worker's event loop: other threads put calls in, the loop makes them."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Mailbox:
    """Thread-safe to post; opened only by the thread of the event loop."""

    def __init__(self) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def post(self, call: Callable[[], None]) -> None:
        """Have the event loop make this call, soon."""
        self._calls.append(call)
        with contextlib.suppress(BlockingIOError):  # full of wake-ups already
            os.write(self._writer, b"!")

    def register(self, hub: Any) -> None:
        """Let the event loop (kombu's hub) watch; again after each reconnect, for the hub forgets."""
        hub.add_reader(self._reader, self.open)

    def open(self, *_: Any) -> None:
        """Make the calls that have been posted."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass
        while self._calls:
            call = self._calls.popleft()
            try:
                call()
            except Exception:  # one delivery's trouble must not become another's
                log.exception("mailbox_call_failed")
