"""Sweep: ring for what should have rung. Every agent does it; ringing twice is harmless."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from chiffon.config import Settings
from chiffon.dispatch.ring import Debt, Ringer
from chiffon.domain.errors import ChiffonError, LedgerUnavailable
from chiffon.ledger import rings, sweeps
from chiffon.ledger.connect import LostRace, open_session, session_transaction

log = structlog.get_logger(__name__)

BATCH = 500
DEATHS_PER_CRASH = 3
"""A whole agent's death has many causes: a task is blamed for it only after this many times as many."""

DEBT_GRACE = 10.0
"""Seconds that the holder of a message has to dead-letter it itself."""


@dataclass(frozen=True)
class Suspicion:
    """Messages of a queue that must have been lost: those still `queued` that were rung long ago.

    ``priority``: None is any. ``rung_before``: a moment of the ledger's clock; None is now. ``older_than``: seconds
    before that.
    """

    queue: str
    priority: int | None
    rung_before: datetime | None
    older_than: float


class DeathWatch:
    """Which incarnations are dead: those whose lock was free at two looks, some time apart, on one unbroken session.

    A restart of Postgres frees every lock at once; but it breaks the watcher's session too, and it starts anew.
    """

    def __init__(self, grace: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace = grace
        self._clock = clock
        self._since: dict[int, float] = {}

    def look(self, unlocked: set[int]) -> set[int]:
        """What was seen now; the incarnations that are dead by it."""
        now = self._clock()
        before = self._since
        self._since = {incarnation: before.get(incarnation, now) for incarnation in unlocked}
        return {incarnation for incarnation in unlocked & before.keys() if now - before[incarnation] >= self._grace}

    def forget(self) -> None:
        """The session broke: what was seen on it proves nothing."""
        self._since.clear()


class Sweeper:
    """A thread that sweeps every ``CHIFFON_SWEEP_SECONDS``, on a session of its own."""

    def __init__(
        self, settings: Settings, ringer: Ringer, *, name: str, suspicions: Callable[[], Sequence[Suspicion]] = tuple
    ) -> None:
        self._settings = settings
        self._ringer = ringer
        self._name = name
        self._suspicions = suspicions
        self._deaths = DeathWatch(settings.takeover_grace)
        self._session: Any = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after the statement that runs."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                full = self._sweep()
            except LostRace as error:  # the session lives, and what was seen on it counts
                log.info("sweep_repeated", reason=str(error))
                full = True
            except LedgerUnavailable as error:
                log.warning("sweep_waits_for_ledger", reason=str(error))
                self._drop_session()
                full = False
            except ChiffonError as error:
                log.error("sweep_failed", reason=str(error))
                self._drop_session()
                full = False
            except Exception:  # the loop must go on; whatever it is, it is logged
                log.exception("sweep_failed")
                self._drop_session()
                full = False
            if not full:
                self._stopping.wait(self._settings.sweep_seconds)
        self._drop_session()

    def _sweep(self) -> bool:
        """One round; whether there may be more to do at once."""
        if self._session is None:
            self._session = open_session(self._settings.direct_url, f"chiffon sweeper {self._name}")
        self._bury()
        settings = self._settings
        with session_transaction(self._session) as cursor:
            expired = sweeps.expire(cursor, limit=BATCH, ttl=settings.idempotency_ttl)
        with session_transaction(self._session) as cursor:
            due = sweeps.due(cursor, limit=BATCH)
        self._find_lost()
        leased = self._ring() if self._ringer.ready() else 0
        return BATCH in (len(expired), due, leased)

    def _find_lost(self) -> None:
        for suspicion in self._suspicions():
            with session_transaction(self._session) as cursor:
                lost = sweeps.lost(
                    cursor,
                    queue=suspicion.queue,
                    priority=suspicion.priority,
                    rung_before=suspicion.rung_before,
                    older_than=suspicion.older_than,
                    limit=BATCH,
                )
            if lost:
                log.warning("messages_lost", queue=suspicion.queue, priority=suspicion.priority, tasks=lost)

    def _ring(self) -> int:
        """Ring for what waits, and pay what is owed; how many rings were due."""
        with session_transaction(self._session) as cursor:
            leased = rings.lease(cursor, limit=BATCH, lease=self._settings.ring_lease)
        self._ringer.ring(leased)
        with session_transaction(self._session) as cursor:
            owed = sweeps.debts(cursor, limit=BATCH, older=DEBT_GRACE, lease=self._settings.ring_lease)
        self._ringer.ring(Debt(ring, reason) for ring, reason in owed)
        return len(leased)

    def _bury(self) -> None:
        with session_transaction(self._session) as cursor:
            if silenced := sweeps.silence_mute(cursor, offline_after=self._settings.offline_after):
                log.warning("mute_agents_cut_off", incarnations=silenced)
            unlocked = sweeps.unlocked(cursor)
        for incarnation in self._deaths.look(unlocked):
            with session_transaction(self._session) as cursor:
                freed = sweeps.take_over(
                    cursor,
                    incarnation,
                    ttl=self._settings.idempotency_ttl,
                    max_deaths=self._settings.max_crashes * DEATHS_PER_CRASH,
                )
            log.warning("took_over", incarnation=incarnation, tasks=len(freed))
            for task in freed:
                log.warning("task_taken_over", incarnation=incarnation, **task._asdict())

    def _drop_session(self) -> None:
        self._deaths.forget()
        session, self._session = self._session, None
        if session is not None:
            session.close()
