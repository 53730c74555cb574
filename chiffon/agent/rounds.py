"""What an agent sees to in the ledger every moment or so: heartbeat, cancellations, paid debts, and what it forgot."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

import structlog

from chiffon.agent.commands import Paid
from chiffon.agent.life import Life
from chiffon.agent.mailbox import Mailbox
from chiffon.config import Settings
from chiffon.domain.verdicts import GivenBack, WorkError
from chiffon.ledger import agents, claims
from chiffon.ledger.settle import Settlement, clear_debts, settle

log = structlog.get_logger(__name__)

HUNG_AFTER = 15.0
"""Seconds without a sign of life of the event loop after which no heartbeat speaks for it."""

PAID_AFTER = 2.0
"""Seconds that the broker has to dead-letter what it has heard to be rejected: it may be killed meanwhile."""


class Rounds:
    """Used by the clerk's thread only. ``held``: the executions that the agent has, as (task id, number).

    ``on_cancel``: called with an execution that was asked to stop, and since how many seconds. ``paid``: dead letters
    of which it is not known yet whether the broker has them.
    """

    def __init__(self, settings: Settings, life: Life, mailbox: Mailbox, held: set[tuple[str, int]]) -> None:
        self._settings = settings
        self._life = life
        self._mailbox = mailbox
        self._held = held
        self._beat_at = 0.0
        self._has_beaten = False
        """Since the last round."""
        self.paid: list[Paid] = []
        self.on_cancel: Callable[[tuple[str, int], float], None] = lambda key, since: None

    def begin(self) -> None:
        """The agent has come to life, which the ledger knows."""
        self._beat_at = time.monotonic()

    def beat(self, *, draining: bool) -> None:
        """Say that the agent lives, when it is time to. Raises LedgerUnavailable, SchemaBehind, LostRace."""
        now = time.monotonic()
        # While an agent drains, its event loop waits for the pool, and says nothing.
        answers = draining or now - self._mailbox.opened_at < HUNG_AFTER
        if answers and now - self._beat_at >= self._settings.heartbeat_seconds:
            self._life.beat(self._life.identity.queues, self._life.identity.slots)
            self._beat_at = now
            self._has_beaten = True

    def go(self, *, draining: bool) -> None:
        """Make a round. Raises as `beat`."""
        if self._has_beaten:
            self._give_back_forgotten()
            self._has_beaten = False
        self._pass_on_cancels(draining=draining)
        self._clear_paid(time.monotonic())

    def _pass_on_cancels(self, *, draining: bool) -> None:
        incarnation = self._life.incarnation
        if not self._held or incarnation is None:
            return
        with self._life.statements() as cursor:
            asked = claims.asked_to_stop(cursor, incarnation)
        for key, since in asked.items():
            if draining:  # nobody opens the mailbox then; and whoever stops a thread waits for this one to end
                threading.Thread(target=self.on_cancel, args=(key, since), daemon=True).start()
            else:
                self._mailbox.post(partial(self.on_cancel, key, since))

    def _clear_paid(self, now: float) -> None:
        # One whose connection is gone is paid by a sweeper, which waits for a confirm.
        self.paid = [paid for paid in self.paid if paid.still_connected()]
        if settled := [paid for paid in self.paid if now - paid.at >= PAID_AFTER and paid.heard()]:
            with self._life.statements() as cursor:
                clear_debts(cursor, [(paid.task_id, paid.execution) for paid in settled])
            self.paid = [paid for paid in self.paid if paid not in settled]

    def _give_back_forgotten(self) -> None:
        """Give back what the ledger says that this agent runs, and it does not know of: nobody else would run it."""
        incarnation = self._life.incarnation
        if incarnation is None:
            return
        with self._life.statements() as cursor:
            held = agents.still_held(cursor, incarnation)
        for task_id, execution in held.keys() - self._held:
            request_id, trace_id = held[task_id, execution]
            log.error(
                "forgotten_task_given_back",
                task_id=task_id,
                request_id=request_id,
                trace_id=trace_id,
                execution=execution,
            )
            error = WorkError("GivenBack", "the agent had forgotten it", "chiffon")
            settlement = Settlement(task_id, execution, GivenBack(error, started=True))
            with self._life.transaction() as cursor:
                settle(
                    cursor,
                    [settlement],
                    ttl=self._settings.idempotency_ttl,
                    max_crashes=self._settings.max_crashes,
                )
