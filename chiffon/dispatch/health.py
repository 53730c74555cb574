"""Health: whether work can be taken in, and whether it moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from chiffon.dispatch.broker import asking
from chiffon.dispatch.ring import Ringer, RingerState
from chiffon.domain.errors import BrokerUnavailable
from chiffon.ledger import migrate
from chiffon.ledger.connect import Ledger
from chiffon.ledger.writable import require_writable

log = structlog.get_logger(__name__)

_PATIENCE = 2.0  # seconds for each answer of the broker
_FRESH = 5.0  # seconds for which a look at the broker counts


@dataclass(frozen=True)
class Readiness:
    """Work is taken in. ``problem``: why it waits meanwhile, None when all is well; for anybody to read.

    ``broker``: ok, unreachable, or blocked (it takes no messages). ``ringer``: idle (nothing was rung in this process
    yet), connected, waiting (it found no way to publish) or dead (the next dispatch revives it).
    """

    broker: str
    ringer: str
    problem: str | None


class SchemaGuard:
    """Looks at the ledger's revision until it is the right one, once a process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._is_current = False

    def check(self) -> None:
        """Raise SchemaBehind or LedgerUnavailable unless this ledger has been found current."""
        if not self._is_current:
            with self._ledger.transaction() as cursor:
                migrate.require_current(cursor)
            self._is_current = True

    def check_again(self) -> None:
        """The same, by a look at the ledger now; and raise LedgerReadOnly unless it takes writes."""
        with self._ledger.transaction() as cursor:
            migrate.require_current(cursor)
            self._is_current = True
            require_writable(cursor)


def require_takes_writes(ledger: Ledger) -> None:
    """Raise LedgerReadOnly or LedgerUnavailable unless Postgres takes writes."""
    with ledger.transaction() as cursor:
        require_writable(cursor)


class BrokerProbe:
    """Whether the broker answers, looked at every few seconds at most."""

    def __init__(self, broker_url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._broker_url = broker_url
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at: float | None = None
        self._problem: str | None = None

    def problem(self) -> str | None:
        """Why it does not answer; None when it does."""
        with self._lock:
            if self._looked_at is None or self._clock() - self._looked_at >= _FRESH:
                problem = self._look()
                if problem is not None and self._problem is None:
                    log.warning("broker_unavailable", reason=problem)
                self._problem, self._looked_at = problem, self._clock()
            return self._problem

    def _look(self) -> str | None:
        try:
            with asking(self._broker_url, name="chiffon health", patience=_PATIENCE):
                return None
        except BrokerUnavailable as error:
            return str(error)


def look_at_health(schema: SchemaGuard, probe: BrokerProbe, ringer: Ringer) -> Readiness:
    """How it is. A broker that is down delays work and loses none, so it is no error.

    Raises:
        LedgerUnavailable, LedgerReadOnly, SchemaBehind: no work can be taken in.
    """
    schema.check_again()
    state = ringer.state()
    rings = _in_a_word(state)
    if probe.problem() is not None:
        return Readiness("unreachable", rings, "RabbitMQ does not answer: accepted work is safe, and waits for it")
    if state.blocked:
        return Readiness("blocked", rings, "RabbitMQ has a memory or disk alarm: accepted work is safe, and waits")
    if state.waits:
        return Readiness("ok", rings, "RabbitMQ answers, but nothing can be published: accepted work waits")
    return Readiness("ok", rings, None if state.alive else state.detail)


def _in_a_word(state: RingerState) -> str:
    if not state.alive:
        return "dead"
    if state.connected:
        return "connected"
    return "waiting" if state.waits else "idle"
