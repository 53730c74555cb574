"""Ending well: finish what runs, up to a limit, then give it back; a second SIGTERM gives back at once."""

from __future__ import annotations

import signal
import threading
from typing import Any

import structlog

from chiffon.agent.runs import Runs

log = structlog.get_logger(__name__)


class Drain:
    """Begun when the agent is told to end. ``seconds``: how long what runs may go on."""

    def __init__(self, runs: Runs, seconds: float) -> None:
        self._runs = runs
        self._seconds = seconds
        self._over = threading.Event()
        self._giving_back = threading.Lock()
        self._timer: threading.Timer | None = None
        self._signals = 0
        self.begun = False

    def listen(self) -> None:
        """Count the SIGTERMs from now on; the first one is Celery's. To be called by the main thread."""
        celerys = signal.getsignal(signal.SIGTERM)

        def on_signal(number: int, frame: Any) -> None:
            self._signals += 1
            if self._signals == 1 and callable(celerys):
                celerys(number, frame)
            elif self._signals > 1:
                self._hurry()

        signal.signal(signal.SIGTERM, on_signal)

    def begin(self) -> None:
        """Start the clock."""
        if self.begun:
            return
        self.begun = True
        self._timer = threading.Timer(self._seconds, self._give_back, ["the agent had to end before the work did"])
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """Everything has come to its end; what is being given back is first."""
        with self._giving_back:
            self._over.set()
        if self._timer is not None:
            self._timer.cancel()

    def _hurry(self) -> None:
        if not self.begun:
            self._seconds = 0
            return
        # In a thread of its own: the signal may have interrupted whoever holds a lock that is needed here.
        threading.Thread(target=self._give_back, args=["the agent was told twice to end"], daemon=True).start()

    def _give_back(self, why: str) -> None:
        with self._giving_back:
            if not self._over.is_set():
                log.warning("giving_back", runs=len(self._runs), reason=why)
                self._runs.surrender(why)
