"""What the broker has taken, until the ledger knows: written down a little later, for many at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

import structlog

from chiffon.domain.errors import ChiffonError
from chiffon.ledger import rings
from chiffon.ledger.connect import Ledger
from chiffon.ledger.settle import clear_debts

log = structlog.get_logger(__name__)

LATER = 0.02
"""Seconds after which it is written down. Of a task that an agent has claimed by then there is nothing to write."""

MANY = 500
"""When there are so many, no more are waited for."""

_ATTEMPTS = 3
_PAUSE = 0.2
_PATIENCE = 5.0


class Confirmed:
    """Written down by a thread of its own: meanwhile the broker has the next ones. For one process.

    What is lost of it is rung, or paid, once more than needed: harmless.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rung: list[tuple[str, int]] = []
        self._paid: list[tuple[str, int]] = []
        self._more = threading.Condition()
        self._closing = False
        self._thread: threading.Thread | None = None

    def add(self, rung: Iterable[tuple[str, int]], paid: Iterable[tuple[str, int]]) -> None:
        """The broker has these rings (task id, ring number), and the dead letters of these (task id, execution)."""
        with self._more:
            had_some = bool(self._rung or self._paid)
            self._rung += rung
            self._paid += paid
            if not (self._rung or self._paid):
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="confirmed", daemon=True)
                self._thread.start()
            if not had_some or len(self._rung) >= MANY:
                self._more.notify()

    def close(self) -> None:
        """Write down what there is, and end the thread. More may be added later."""
        with self._more:
            thread, self._thread = self._thread, None
            self._closing = True
            self._more.notify()
        if thread is not None:
            thread.join(_PATIENCE)
        self._closing = False

    def _run(self) -> None:
        while True:
            with self._more:
                self._more.wait_for(lambda: self._rung or self._paid or self._closing)
                self._more.wait_for(lambda: len(self._rung) >= MANY or self._closing, LATER)
                rung, self._rung = self._rung, []
                paid, self._paid = self._paid, []
            if not rung and not paid:
                return
            try:
                self._write(rung, paid)
            except Exception:  # the thread must go on; the sweeper rings again for what it had
                log.exception("confirm_not_written", rings=len(rung), debts=len(paid))

    def _write(self, rung: Sequence[tuple[str, int]], paid: Sequence[tuple[str, int]]) -> None:
        """A ledger that does not answer is asked again, and then left alone."""
        for attempt in range(_ATTEMPTS):
            time.sleep(_PAUSE * attempt)
            try:
                with self._ledger.statements() as cursor:
                    if rung:
                        rings.confirm(cursor, rung)
                        rung = []
                    if paid:
                        clear_debts(cursor, paid)
            except ChiffonError as error:
                log.warning("confirm_not_written", reason=str(error), rings=len(rung), debts=len(paid))
            else:
                return
