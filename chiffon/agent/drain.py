"""Ending well: finish what runs, up to a limit, then give it back; a second signal gives back at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import structlog
from celery import signals
from celery.apps.worker import safe_say
from celery.utils.log import in_sighandler
from celery.worker import state

from chiffon.agent.runs import Runs

log = structlog.get_logger(__name__)

LAST_WORDS = 1.0
"""Seconds, at most, in which the pool may still tell what processes had said before they were killed."""


class Drain:
    """Begun when the agent, which has this ``name``, is told to end. ``seconds``: how long what runs may go on.

    ``on_abandon``: ends the process, whatever it waits for; called once everything has been given back.
    """

    def __init__(self, runs: Runs, seconds: float, *, name: str) -> None:
        self._runs = runs
        self._name = name
        self._seconds = seconds
        self._pid = os.getpid()
        self._pool_has_ended = threading.Event()
        self._over = False
        self._giving_back = threading.Lock()
        self._timer: threading.Timer | None = None
        self._signals = 0
        self.begun = False
        self.on_abandon: Callable[[], None] = lambda: None

    def listen(self) -> None:
        """Take over the signals that tell an agent to end. To be called by the main thread.

        (By Celery's second Ctrl-C, and its SIGQUIT, what runs would end as cancelled.)
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._on_signal)

    def begin(self) -> None:
        """Start the clock."""
        if self.begun:
            return
        self.begun = True
        self._timer = threading.Timer(self._seconds, self._give_back, ["the agent had to end before the work did"])
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """The pool has ended; what is being given back is first."""
        self._pool_has_ended.set()
        with self._giving_back:
            self._over = True
        if self._timer is not None:
            self._timer.cancel()

    def _on_signal(self, number: int, _: Any) -> None:
        if os.getpid() != self._pid:  # a process of the pool, which has inherited this
            return
        self._signals += 1
        if self._signals == 1:
            self._tell_celery(signal.Signals(number).name)
        if self._signals > 1 or number == signal.SIGQUIT:
            self._hurry()
        if self._signals > 2:
            threading.Thread(target=self._abandon, daemon=True).start()

    def _tell_celery(self, signal_name: str) -> None:
        try:
            with in_sighandler():
                safe_say("worker: Warm shutdown (MainProcess)", sys.__stdout__)
                signals.worker_shutting_down.send(sender=self._name, sig=signal_name, how="Warm", exitcode=os.EX_OK)
        finally:
            state.should_stop = os.EX_OK

    def _hurry(self) -> None:
        if not self.begun:
            self._seconds = 0
            return
        # In a thread of its own: the signal may have interrupted whoever holds a lock that is needed here.
        threading.Thread(target=self._give_back, args=["the agent was told twice to end"], daemon=True).start()

    def _abandon(self) -> None:
        """End, though something holds the main thread up: a broker that does not answer, and is not gone."""
        self._give_back("the agent was told three times to end")
        self.on_abandon()

    def _give_back(self, why: str) -> None:
        with self._giving_back:
            if not self._over:
                log.warning("giving_back", runs=len(self._runs), reason=why)
                self._runs.surrender(why, last_words=lambda: self._pool_has_ended.wait(LAST_WORDS))
