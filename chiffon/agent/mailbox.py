"""A mailbox on the worker's event loop: other threads put calls in, the loop makes them."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class Mailbox:
    """Thread-safe to post; opened only by the thread of the event loop.

    ``after``: called after each call, for what is better done for all that the call was about.
    """

    def __init__(self) -> None:
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False
        self.opened_at = time.monotonic()
        """When the event loop last came by, on the monotonic clock."""
        self.after: Callable[[], None] = lambda: None
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def post(self, call: Callable[[], None]) -> None:
        """Have the event loop make this call, soon."""
        self._calls.append(call)
        if not self._woken:
            self._wake()

    def register(self, hub: Any) -> None:
        """Let the event loop (kombu's hub) watch; again after each reconnect, for the hub forgets."""
        hub.add_reader(self._reader, self._take)

    def open(self) -> None:
        """Make all the calls that have been posted."""
        while self._calls:
            self._make_next()
        self._make(self.after)

    def _take(self) -> None:
        """Make one call: whatever else the loop watches has its turn before the next."""
        self.opened_at = time.monotonic()
        if self._calls:
            self._make_next()
        if self._calls:
            return  # the pipe still has something to read
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 4096):
                pass
        self._woken = False
        if self._calls:  # posted a moment ago, by somebody who took the loop for woken
            self._wake()

    def _wake(self) -> None:
        self._woken = True
        with contextlib.suppress(BlockingIOError):  # full of wake-ups already
            os.write(self._writer, b"!")

    def _make_next(self) -> None:
        self._make(self._calls.popleft())
        self._make(self.after)

    def _make(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:  # one delivery's trouble must not become another's
            log.exception("mailbox_call_failed")
