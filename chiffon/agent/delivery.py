"""A message in hand: it takes room in its queue's window until it is acknowledged or dead-lettered, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog

from chiffon.agent.commands import Paid
from chiffon.agent.hearing import Hearing
from chiffon.agent.receipts import Receipts
from chiffon.agent.traffic import Traffic
from chiffon.ledger.settle import Fenced, Recorded

log = structlog.get_logger(__name__)


class Delivery:
    """One delivery. Used by the event loop only.

    ``connected``: whether the connection that brought it still stands; after that its word counts for nothing, and the
    broker delivers the message again. ``hearing``: whether the broker has heard what it was told of it. ``receipts``:
    of its channel. ``share``: the part of a slot that it counts for while its work is in hand.
    """

    def __init__(
        self,
        message: Any,
        traffic: Traffic,
        hearing: Hearing,
        receipts: Receipts,
        connected: Callable[[], bool],
        errors: tuple[Any, ...],
    ) -> None:
        self.message = message
        self.hearing = hearing
        self.connected = connected
        self.share = 1.0
        self.came_at = time.monotonic()
        self._receipts = receipts
        self._traffic = traffic
        self._errors = errors
        self._answered = False
        traffic.delivered()
        receipts.came(message.delivery_tag)

    def acknowledge(self, *_: Any) -> None:
        """It has done its duty; the broker is told with the next receipts."""
        if self._leave():
            self._receipts.done(self.message.delivery_tag)

    def dead_letter(self, *_: Any) -> bool:
        """It goes to `dlx_queue`, if there is still anything to reject; whether there was."""
        if not self._leave():
            return False
        self._reject(requeue=False)
        self.hearing.want()
        return True

    def conclude(self, answer: Recorded | Fenced, key: tuple[str, int], tell: Callable[[Paid], None]) -> None:
        """It is settled: dead-letter it if its task owes that, and ``tell`` so; else acknowledge it.

        ``key``: the task id and the execution. Without a message in hand, long acknowledged, a sweeper pays the debt.
        """
        if not (isinstance(answer, Recorded) and answer.owes_dead_letter):
            self.acknowledge()
        elif self.dead_letter():
            at = time.monotonic()
            tell(Paid(*key, at, self.connected, lambda: self.hearing.since(at)))

    def put_back(self) -> None:
        """It goes back to its queue, to its old place, for an agent that has a slot for it."""
        if self._leave():
            self._reject(requeue=True)

    def _reject(self, *, requeue: bool) -> None:
        self._receipts.answered(self.message.delivery_tag)
        self.message.reject_log_error(log, self._errors, requeue=requeue)

    def _leave(self) -> bool:
        if self._answered or not self.connected():
            return False
        self._answered = True
        self._traffic.done()
        return True
