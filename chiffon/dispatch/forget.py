"""Forgetting: what ended longer ago than anybody wants to know goes, a little at a time."""

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
        """Forget a batch on a held session, if it is time to; how many tasks went. Raises as `session_transaction`."""
        now = self._clock()
        if not self._age or now < self._again_at:
            return 0
        with session_transaction(session) as cursor:
            batch = retention.forget_tasks(cursor, age=self._age, limit=BATCH, after=self._after)
        self._after = batch.newest
        if batch.deleted < BATCH:
            # The next time from the beginning: what could not go yet may, and somebody else may have held some.
            self._again_at, self._after = now + REST, START
            with session_transaction(session) as cursor:
                retention.forget_agents(cursor, age=self._age)
        if batch.deleted:
            log.info("tasks_forgotten", tasks=batch.deleted)
        return batch.deleted
