"""An agent's life in the ledger: its incarnation, the lock that proves it, and its heartbeat.

The session that holds the lock is the one that makes the claims: whoever has lost the one can no longer do the other.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from chiffon.domain.errors import ChiffonError, LedgerUnavailable
from chiffon.ledger import agents, migrate, sweeps
from chiffon.ledger.connect import Cursor, open_session, session_statements, session_transaction
from chiffon.ledger.failures import LostRace

log = structlog.get_logger(__name__)

GOODBYES = 3
"""How often an agent that ends says goodbye, if somebody holds a row that it needs for that."""


@dataclass(frozen=True)
class Identity:
    """Who an agent is, and what it can do."""

    agent_id: str
    slots: int
    queues: tuple[str, ...]
    work_types: tuple[str, ...]
    version: str


class Life:
    """One life of an agent. Used by one thread."""

    def __init__(self, url: str, identity: Identity) -> None:
        self._url = url
        self.identity = identity
        self.incarnation: int | None = None
        self._session: Any = None

    def begin(self) -> set[tuple[str, int]]:
        """Open the session and hold the lock; the executions that are this incarnation's own, none at the first time.

        An incarnation that the ledger does not have (its registration was rolled back, or a backup restored) is
        followed by another. Raises LedgerUnavailable, also while an older session of ours still holds the lock;
        LostRace, SchemaBehind.
        """
        session = open_session(self._url, f"chiffon agent {self.identity.agent_id}")
        try:
            with session_transaction(session) as cursor:
                migrate.require_current(cursor)
                incarnation, held = self._rejoin(cursor) or self._register(cursor)
        except BaseException:
            session.close()
            raise
        self.incarnation, self._session = incarnation, session
        return held

    def _register(self, cursor: Cursor) -> tuple[int, set[tuple[str, int]]]:
        who = self.identity
        incarnation = agents.register(
            cursor,
            agent_id=who.agent_id,
            hostname=socket.gethostname(),
            pid=os.getpid(),
            slots=who.slots,
            queues=who.queues,
            work_types=who.work_types,
            version=who.version,
        )
        log.info("agent_registered", agent_id=who.agent_id, incarnation=incarnation)
        return incarnation, set()

    def _rejoin(self, cursor: Cursor) -> tuple[int, set[tuple[str, int]]] | None:
        incarnation = self.incarnation
        if incarnation is None:
            return None
        if not agents.lock(cursor, incarnation):
            raise LedgerUnavailable(f"the lock of incarnation {incarnation} is still held by its old session")
        held = agents.rejoin(cursor, incarnation)
        if held is None:
            log.error("incarnation_unknown", agent_id=self.identity.agent_id, incarnation=incarnation)
            return None
        log.info("agent_rejoined", agent_id=self.identity.agent_id, incarnation=incarnation, held=len(held))
        return incarnation, held

    @property
    def alive(self) -> bool:
        """Whether the session is there, as far as was seen last."""
        return self._session is not None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """A transaction of this life. Raises LedgerUnavailable, and then the session is gone."""
        if self._session is None:
            raise LedgerUnavailable("the agent's session is not open")
        try:
            with session_transaction(self._session) as cursor:
                yield cursor
        except LedgerUnavailable:
            self.drop()
            raise

    @contextlib.contextmanager
    def statements(self) -> Iterator[Cursor]:
        """As `transaction`, but each statement is one of its own: half as long to wait, where one is enough."""
        if self._session is None:
            raise LedgerUnavailable("the agent's session is not open")
        try:
            with session_statements(self._session) as cursor:
                yield cursor
        except LedgerUnavailable:
            self.drop()
            raise

    def drop(self) -> None:
        """Give the session up, and the lock with it."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def beat(self, queues: Sequence[str], slots: int) -> None:
        """Say that the agent lives."""
        if self.incarnation is not None:
            with self.statements() as cursor:
                agents.beat(cursor, self.incarnation, queues=queues, slots=slots)

    def drain(self) -> None:
        """Say that nothing new is taken."""
        if self.incarnation is not None:
            with self.transaction() as cursor:
                agents.drain(cursor, self.incarnation)

    def say_goodbye(self, *, ttl: float, max_deaths: int) -> None:
        """`end`, if that can be. If not, the lock that nobody holds any more says the same, a few seconds later."""
        try:
            for _ in range(GOODBYES - 1):
                with contextlib.suppress(LostRace):
                    return self.end(ttl=ttl, max_deaths=max_deaths)
            self.end(ttl=ttl, max_deaths=max_deaths)
        except ChiffonError as error:
            log.warning("goodbye_not_written", reason=str(error))
            self.drop()

    def end(self, *, ttl: float, max_deaths: int) -> None:
        """Say goodbye, and leave what was not ended to others (see `sweeps.take_over`)."""
        if self.incarnation is not None and self._session is not None:
            with self.transaction() as cursor:
                sweeps.take_over(cursor, self.incarnation, ttl=ttl, max_deaths=max_deaths)
                agents.leave(cursor, self.incarnation)
        self.drop()
