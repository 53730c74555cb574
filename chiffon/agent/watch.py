"""Watching the event loop: an agent that hangs must end, for its supervisor to start another."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

EVERY = 5.0
"""Seconds between two questions."""

HUNG_AFTER = 45.0
"""Seconds without an answer after which the loop is taken to be hung; its work is taken over by others."""


class HubWatch:
    """Asks the event loop for a sign of life. ``post`` has it make a call; ``end`` ends the process."""

    def __init__(
        self,
        post: Callable[[Callable[[], None]], None],
        *,
        every: float = EVERY,
        hung_after: float = HUNG_AFTER,
        end: Callable[[], None] = lambda: os._exit(os.EX_TEMPFAIL),
    ) -> None:
        self._post = post
        self._every = every
        self._hung_after = hung_after
        self._end = end
        self._unanswered = 0
        self._over = threading.Event()

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="hub watch", daemon=True).start()

    def stop(self) -> None:
        """The loop is about to end."""
        self._over.set()

    def _run(self) -> None:
        # Questions are counted, and not seconds: to a process that was stopped, and goes on, the clock has run.
        while not self._over.wait(self._every):
            if self._unanswered * self._every >= self._hung_after:
                log.critical("event_loop_hangs", seconds=self._unanswered * self._every)
                self._end()
                return
            self._unanswered += 1
            self._post(self._answer)

    def _answer(self) -> None:
        self._unanswered = 0
