"""How long it takes, after a fault is over, until a task that is dispatched then is done."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from tests.chaos.clients import Api
from tests.chaos.plan import Order
from tests.chaos.promises import Promises
from tests.chaos.stand import Stand

PATIENCE = 120.0
"""Seconds until there was no pulse."""

PATIENCE_IN_LINE = 600.0
"""And where nothing is urgent to the broker (quorum queues before RabbitMQ 4.3): it waits behind all that is open."""

_ENDS = frozenset({"completed", "failed", "cancelled", "timed_out", "expired", "dead_lettered"})


@dataclass
class Pulse:
    """Takes the pulse after each fault. ``beats``: seconds, by the fault; None where there was none in time."""

    stand: Stand
    promises: Promises
    beats: list[tuple[str, float | None]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _number: int = 0

    def take(self, after: str) -> None:
        """Wait for one beat. ``after``: which fault is over."""
        with self._lock:
            self._number += 1
            number = self._number
        order = Order(f"pulse-{self.stand.name}-{number}", "chaos.note", {}, {"priority": 5})
        began = time.monotonic()
        ended = self._ends(order, began + (PATIENCE if self.stand.has_priorities else PATIENCE_IN_LINE))
        self.beats.append((after, time.monotonic() - began if ended else None))

    def _ends(self, order: Order, deadline: float) -> bool:
        api = Api(self.stand, self.promises)
        body = {"work_type": order.work_type, "parameters": {}, "request_id": order.request_id, **order.fields}
        while (left := deadline - time.monotonic()) > 0:
            answer, asked = api.insist("/dispatch", body, within=left, Prefer="wait=5")
            if answer is None or answer.status_code not in {200, 202}:
                return False
            told = answer.json()
            self.promises.accept(told["task_id"], order, duplicate=told["duplicate"], asked=asked)
            if told["status"] in _ENDS:
                return True
        return False
