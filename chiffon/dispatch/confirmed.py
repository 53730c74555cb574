"""What the broker has taken, until the ledger knows: written down a little later, for many at once."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import structlog

from chiffon.domain.errors import ChiffonError
from chiffon.ledger import rings
from chiffon.ledger.connect import Ledger
from chiffon.ledger.settle import clear_debts

log = structlog.get_logger(__name__)

LATER = 0.02
"""Seconds after which it is written down. Of a task that an agent has claimed by then there is nothing to write."""

MOST = 500
"""Of how many at once, at most."""

_ATTEMPTS = 3
_PAUSE = 0.2


class Confirmed:
    """Used by one thread. What is lost of it is rung, or paid, once more than needed: harmless."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rung: list[tuple[str, int]] = []
        self._paid: list[str] = []
        self._due_at = math.inf

    def add(self, rung: Iterable[tuple[str, int]], paid: Iterable[str]) -> None:
        """The broker has these rings (task id, ring number), and the dead letters of these tasks."""
        self._rung += rung
        self._paid += paid
        if self._rung or self._paid:
            self._due_at = min(self._due_at, time.monotonic() + LATER)

    @property
    def due_in(self) -> float:
        """Seconds until it is to be written down: 0 if now, infinite if there is nothing."""
        if len(self._rung) >= MOST:
            return 0.0
        return max(0.0, self._due_at - time.monotonic())

    def write(self) -> None:
        """Write it down. A ledger that does not answer is asked again, and then left alone."""
        rung, self._rung = self._rung, []
        paid, self._paid = self._paid, []
        self._due_at = math.inf
        if not rung and not paid:
            return
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
