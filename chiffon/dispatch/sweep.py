"""Sweep: ring for what should have rung. Every agent does it; ringing twice is harmless."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from chiffon.config import Settings
from chiffon.dispatch.forget import Forgetting
from chiffon.dispatch.lost import EmptyQueues, Suspicion, ask_ready
from chiffon.dispatch.resting import Resting
from chiffon.dispatch.ring import Debt, Ringer
from chiffon.domain.errors import BrokerUnavailable, ChiffonError, LedgerUnavailable
from chiffon.ledger import rings, sweeps
from chiffon.ledger.connect import open_session, session_transaction
from chiffon.ledger.failures import LostRace
from chiffon.ledger.writable import require_writable

log = structlog.get_logger(__name__)

BATCH = 500
DEATHS_PER_CRASH = 3
"""A whole agent's death has many causes: a task is blamed for it only after this many times as many."""

REST = 10.0
"""Seconds for which a step is left out that has failed again; at least: the dead must be found out meanwhile."""

DEBT_GRACE = 10.0
"""Seconds that the holder of a message has to dead-letter it itself."""


class Watch:
    """Which incarnations remain as they were found: for ``grace`` seconds, at several looks on one unbroken session.

    A restart of Postgres frees every lock at once; but it breaks the watcher's session too, and it starts anew. While
    Postgres hangs nobody gets a word in, and the watcher does not look: however long it was, the time between two looks
    counts for ``step`` seconds at most. The living have the rest of the grace to take their lock, or to say that they
    live.
    """

    def __init__(self, grace: float, step: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace = grace
        self._step = step
        self._clock = clock
        self._looked_at = 0.0
        self._seen_for: dict[int, float] = {}

    def look(self, found: set[int]) -> set[int]:
        """What was seen now; the incarnations that have been so for the grace."""
        now, before = self._clock(), self._seen_for
        passed = min(now - self._looked_at, self._step)
        self._looked_at = now
        self._seen_for = {
            incarnation: before[incarnation] + passed if incarnation in before else 0.0 for incarnation in found
        }
        return {incarnation for incarnation in found & before.keys() if self._seen_for[incarnation] >= self._grace}

    def forget(self) -> None:
        """The session broke: what was seen on it proves nothing."""
        self._seen_for.clear()


class Sweeper:
    """A thread that sweeps twice in ``CHIFFON_SWEEP_SECONDS``, on a session of its own.

    ``suspicions``: what the agent itself has seen. ``ready``: asks the broker how many messages queues have ready.
    ``mine``: the incarnation of the agent whose sweeper this is. It lives, whatever becomes of its lock: its own
    session may be longer in coming back than the sweeper's.
    """

    def __init__(
        self,
        settings: Settings,
        ringer: Ringer,
        *,
        name: str,
        suspicions: Callable[[], Sequence[Suspicion]] = tuple,
        ready: Callable[[Settings, Sequence[str]], Mapping[str, int]] = ask_ready,
        mine: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._ringer = ringer
        self._name = name
        self._suspicions = suspicions
        self._ready = ready
        self._mine = mine
        self._empty = EmptyQueues(settings.lost_after)
        self._ask_at = 0.0
        step = max(settings.takeover_grace, settings.sweep_seconds) / 2
        self._deaths = Watch(settings.takeover_grace, step)
        self._mutes = Watch(settings.takeover_grace, step)
        self._dead: set[int] = set()
        self._resting = Resting(max(REST, 3 * settings.takeover_grace))
        self._forgetting = Forgetting(settings.retention)
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
            except Exception as error:  # noqa: BLE001 -- the loop must go on; whatever it is, it is logged
                _complain(error)
                self._drop_session()
                full = False
            if not full:
                # What comes to be due after its look waits for the next round, which takes a while itself.
                self._stopping.wait(self._settings.sweep_seconds / 2)
        self._drop_session()

    def _sweep(self) -> bool:
        """One round; whether there may be more to do at once."""
        if self._session is None:
            name = f"chiffon sweeper {self._name}"
            self._session = open_session(self._settings.direct_url, name, in_short=True)
            with session_transaction(self._session) as cursor:
                # A standby shows nobody's lock, and all would look dead. It may be promoted with the session open.
                require_writable(cursor)
        self._taken("find dead", self._find_dead)
        steps: dict[str, Callable[[], bool]] = {
            **{f"take over {dead}": partial(self._take_over, dead) for dead in self._dead},
            "expire": self._expire,
            "due": self._due,
            "find lost": self._find_lost,
            "find empty": self._find_empty,
            "ring": self._ring,
            "pay": self._pay,
            "forget": self._forget,
        }
        return True in [self._taken(name, step) for name, step in steps.items()]

    def _taken(self, name: str, step: Callable[[], bool]) -> bool:
        """Take a step; whether there is more of it to do. What is wrong with one must not hold up the others.

        While the session lives, what was seen on it counts, and so it is kept. If a step breaks it each time, no dead
        agent would ever be seen so for long enough: such a step rests.
        """
        if self._resting.rests(name):
            return False
        try:
            more = step()
        except LostRace as error:
            log.info("sweep_held_up", step=name, reason=str(error))
            return False
        except Exception as error:
            if self._session.closed:
                self._resting.failed(name)
                raise
            _complain(error, step=name)
            return False
        self._resting.succeeded(name)
        return more

    def _expire(self) -> bool:
        with session_transaction(self._session) as cursor:
            return len(sweeps.expire(cursor, limit=BATCH, ttl=self._settings.idempotency_ttl)) == BATCH

    def _due(self) -> bool:
        with session_transaction(self._session) as cursor:
            return sweeps.due(cursor, limit=BATCH) == BATCH

    def _find_lost(self) -> bool:
        for suspicion in self._suspicions():
            self._ring_again(suspicion)
        return False

    def _find_empty(self) -> bool:
        """Suspect the queues in which the broker has had nothing for long, and the ledger something that was rung."""
        settings, now = self._settings, time.monotonic()
        if now < self._ask_at or not self._ringer.ready():
            return False
        self._ask_at = now + settings.lost_after / 4
        with session_transaction(self._session) as cursor:
            overdue = sweeps.overdue_queues(
                cursor, older_than=settings.lost_after, offline_after=settings.offline_after
            )
        try:
            empty = self._empty.look(self._ready(settings, overdue) if overdue else {})
        except BrokerUnavailable as error:
            log.info("queues_not_known", reason=str(error))
            empty = self._empty.look({})
        for queue in empty:
            self._ring_again(Suspicion(queue, None, None, older_than=settings.lost_after))
        return False

    def _ring_again(self, suspicion: Suspicion) -> None:
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

    def _ring(self) -> bool:
        if not (limit := self._room()):
            return False
        with session_transaction(self._session) as cursor:
            leased = rings.lease(cursor, limit=limit, lease=self._settings.ring_lease)
        self._ringer.ring(leased)
        return len(leased) == BATCH

    def _room(self) -> int:
        """How much may be leased at once: what the ringer can take and the broker hear of."""
        return min(BATCH, self._ringer.room()) if self._ringer.ready() else 0

    def _pay(self) -> bool:
        if not (limit := self._room()):
            return False
        with session_transaction(self._session) as cursor:
            owed = sweeps.debts(cursor, limit=limit, older=DEBT_GRACE, lease=self._settings.ring_lease)
        self._ringer.ring(Debt(*debt) for debt in owed)
        return False

    def _forget(self) -> bool:
        self._forgetting.step(self._session)
        return False  # no hurry: the next batch goes with the next round

    def _find_dead(self) -> bool:
        """Cut off who is mute, and note who is dead: who has been found so for the grace, on this session."""
        self._dead = set()
        with session_transaction(self._session) as cursor:
            mute = self._mutes.look(sweeps.mute(cursor, offline_after=self._settings.offline_after))
            if mute and (silenced := sweeps.silence(cursor, mute, offline_after=self._settings.offline_after)):
                log.warning("mute_agents_cut_off", incarnations=silenced)
            unlocked = sweeps.unlocked(cursor)
        self._dead = self._deaths.look(unlocked - {self._mine()})
        return False

    def _take_over(self, incarnation: int) -> bool:
        with session_transaction(self._session) as cursor:
            freed = sweeps.take_over(
                cursor,
                incarnation,
                ttl=self._settings.idempotency_ttl,
                max_deaths=self._settings.max_crashes * DEATHS_PER_CRASH,
            )
        if freed:
            log.warning("took_over", incarnation=incarnation, tasks=len(freed))
        for task in freed:
            log.warning("task_taken_over", incarnation=incarnation, **task._asdict())
        return False

    def _drop_session(self) -> None:
        self._deaths.forget()
        self._mutes.forget()
        self._dead.clear()
        session, self._session = self._session, None
        if session is not None:
            session.close()


def _complain(error: Exception, **where: str) -> None:
    match error:
        case LedgerUnavailable():
            log.warning("sweep_waits_for_ledger", reason=str(error), **where)
        case ChiffonError():
            log.error("sweep_failed", reason=str(error), **where)
        case _:
            log.error("sweep_failed", exc_info=error, **where)
