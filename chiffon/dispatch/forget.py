"""Forgetting: what ended longer ago than anybody wants to know goes, some at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import structlog

from chiffon.ledger import retention
from chiffon.ledger.connect import session_transaction
from chiffon.ledger.expiry import START

log = structlog.get_logger(__name__)

BATCH = 200
"""Tasks that go in one commit: it takes some milliseconds, and holds no row that anybody else wants."""

SPENDS = 0.1
"""Seconds of a round in which a batch may begin: the rest of the sweep waits meanwhile."""

REST = 60.0
"""Seconds until it is looked again, once there was nothing more that is old."""


class Forgetting:
    """Used by one thread. ``age``: seconds after its end at which a task goes; 0: never."""

    def __init__(self, age: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._age = age
        self._clock = clock
        self._again_at = 0.0
        self._after = START

    def step(self, session: Any) -> int:
        """Forget some batches on a held session, if it is time to; how many tasks went.

        Raises as `session_transaction`; what went before is gone.
        """
        gone, began = 0, self._clock()
        while self._age and (now := self._clock()) >= self._again_at and (not gone or now - began < SPENDS):
            gone += self._forget_batch(session, now)
        if gone:
            log.info("tasks_forgotten", tasks=gone)
        return gone

    def _forget_batch(self, session: Any, now: float) -> int:
        self._again_at = now + REST  # if this fails: it is no hurry, and would fail again
        with session_transaction(session) as cursor:
            batch = retention.forget_tasks(cursor, age=self._age, limit=BATCH, after=self._after)
        self._after = batch.newest
        if batch.deleted == BATCH:
            self._again_at = now
        else:
            # The next time from the beginning: what could not go yet may, and somebody else may have held some.
            self._after = START
            with session_transaction(session) as cursor:
                retention.forget_agents(cursor, age=self._age)
        return batch.deleted
