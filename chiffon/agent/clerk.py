"""The clerk: the one thread of an agent that writes to the ledger, many tasks to a statement."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from chiffon.agent import continuations
from chiffon.agent.commands import Command, Condemned, Draining, Finished, Hopeless, Offer, Paid, Refused, Started
from chiffon.agent.life import Life
from chiffon.agent.mailbox import Mailbox
from chiffon.agent.reading import Direct, Reader
from chiffon.agent.run import Report
from chiffon.config import Settings
from chiffon.dispatch.ring import Ringer
from chiffon.dispatch.sweep import DEATHS_PER_CRASH
from chiffon.domain.errors import LedgerUnavailable, SchemaBehind
from chiffon.domain.tasks import Claim, Fate, NotDue, Ring
from chiffon.domain.verdicts import Failed, WorkError
from chiffon.ledger import claims
from chiffon.ledger.accept import LostRace
from chiffon.ledger.condemn import may_wait
from chiffon.ledger.connect import Cursor, RefusedData
from chiffon.ledger.settle import Fenced, Recorded, clear_debts, settle

log = structlog.get_logger(__name__)

GATHER = 200
"""Claims and settlements that go into one statement, at most."""

TICK = 0.5
"""Seconds between two looks at what needs no command: heartbeats, cancellations."""

PAID_AFTER = 2.0
"""Seconds after which a reject is believed to have reached the broker, if the connection still stands."""


class Clerk:
    """Takes commands from any thread, and answers on the event loop."""

    def __init__(self, settings: Settings, life: Life, reader: Reader, ringer: Ringer, mailbox: Mailbox) -> None:
        self._settings = settings
        self._life = life
        self._reader = reader
        self._ringer = ringer
        self._mailbox = mailbox
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._offers: list[Offer] = []
        self._finished: list[Finished] = []
        self._started: list[Started] = []
        self._paid: list[Paid] = []
        self._condemned: list[Condemned] = []
        self._held: set[tuple[str, int]] = set()
        self._stopping = threading.Event()
        self._draining = False
        self._beat_at = 0.0
        self._ticked_at = 0.0
        self._thread = threading.Thread(target=self._run, name="clerk", daemon=True)
        self.on_cancel: Callable[[tuple[str, int], float], None] = lambda key, since: None
        self.on_lost: Callable[[tuple[str, int]], None] = lambda key: None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def tell(self, command: Command) -> None:
        """Have this written down, soon."""
        self._commands.put(command)

    def stop(self, patience: float) -> bool:
        """Write down what is finished, say goodbye, and end. ``patience``: seconds. Whether all was written."""
        self._stopping.set()
        self._commands.put(None)
        self._thread.join(timeout=patience)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not (self._stopping.is_set() and self._idle()):
            try:
                self._collect()
                if not self._life.alive:
                    self._come_to_life()
                self._work()
            except (LedgerUnavailable, SchemaBehind) as error:
                log.warning("agent_waits_for_ledger", reason=str(error), finished=len(self._finished))
                time.sleep(TICK)
            except Exception:  # nothing on the wire or in the ledger may end the agent
                log.exception("clerk_failed")
                time.sleep(TICK)
        try:
            settings = self._settings
            self._life.end(ttl=settings.idempotency_ttl, max_deaths=settings.max_crashes * DEATHS_PER_CRASH)
        except LedgerUnavailable as error:
            log.warning("goodbye_not_written", reason=str(error))

    def _idle(self) -> bool:
        return self._commands.empty() and not self._finished and not self._condemned

    def _collect(self) -> None:
        """Wait for a command, and take what has gathered behind it."""
        if not (self._finished or self._offers or self._stopping.is_set()):
            try:
                self._sort(self._commands.get(timeout=TICK))
            except queue.Empty:
                return
        while len(self._finished) < GATHER and len(self._offers) < GATHER:
            try:
                self._sort(self._commands.get_nowait())
            except queue.Empty:
                return

    def _sort(self, command: Command | None) -> None:
        match command:
            case Offer():
                self._offers.append(command)
            case Finished():
                self._finished.append(command)
            case Started():
                self._started.append(command)
            case Paid():
                self._paid.append(command)
            case Draining():
                self._draining = True
            case Condemned():
                self._condemned.append(command)
            case None:
                pass

    def _come_to_life(self) -> None:
        still_ours = self._life.begin()
        for key in self._held - still_ours:
            self._held.discard(key)
            self._mailbox.post(lambda key=key: self.on_lost(key))  # type: ignore[misc]
        self._held &= still_ours
        self._beat_at = time.monotonic()

    def _work(self) -> None:
        if self._finished:
            self._settle()
        if self._offers:
            self._claim()
        if self._condemned:
            self._condemn()
        if self._started:
            self._mark()
        if self._draining:
            self._life.drain()
            self._draining = False
        if time.monotonic() - self._ticked_at >= TICK:
            self._tick()
            self._ticked_at = time.monotonic()

    # Settling

    def _settle(self) -> None:
        batch = _one_a_task(self._finished)
        answers = self._written(batch)
        done = {id(finished) for finished, _ in answers}
        self._finished = [finished for finished in self._finished if id(finished) not in done]
        for finished, answer in answers:
            self._held.discard(finished.key)
            self._mailbox.post(lambda f=finished, a=answer: f.reply(a))  # type: ignore[misc]

    def _written(self, batch: Sequence[Finished]) -> list[tuple[Finished, Recorded | Fenced]]:
        """Settle in one commit. Data that Postgres refuses is halved until the bad row stands alone, and fails."""
        try:
            return self._write(batch)
        except (RefusedData, LostRace) as error:
            if len(batch) > 1:
                half = len(batch) // 2
                return self._written(batch[:half]) + self._written(batch[half:])
            if isinstance(error, LostRace):
                return self._written(batch)
            return self._write([_failed_instead(batch[0], error)], answer_for=batch)

    def _write(
        self, batch: Sequence[Finished], *, answer_for: Sequence[Finished] | None = None
    ) -> list[tuple[Finished, Recorded | Fenced]]:
        rings: list[Ring] = []
        with self._life.transaction() as cursor:
            found = settle(
                cursor,
                [finished.settlement for finished in batch],
                ttl=self._settings.idempotency_ttl,
                max_crashes=self._settings.max_crashes,
            )
            for finished in batch:
                answer = found[finished.key]
                if isinstance(answer, Recorded) and answer.fresh:
                    rings += continuations.write(
                        cursor,
                        finished.report,
                        reader=self._reader,
                        trace_id=finished.trace_id,
                        parent=finished.settlement.task_id,
                        lease=self._settings.ring_lease,
                    )
        self._ringer.ring(rings)
        return [(finished, found[finished.key]) for finished in answer_for or batch]

    # Claiming

    def _claim(self) -> None:
        batch = self._offers[:GATHER]
        twins = _twins(batch)
        answers = self._claimed([offer for offer in batch if offer not in twins])
        self._offers = twins + self._offers[len(batch) :]
        for offer, fate in answers:
            claim = fate.claim if isinstance(fate, Hopeless) else fate
            if isinstance(claim, Claim):
                self._held.add((claim.task_id, claim.execution))
            self._mailbox.post(lambda o=offer, f=fate: o.reply(f))  # type: ignore[misc]

    def _claimed(self, batch: Sequence[Offer]) -> list[tuple[Offer, Fate | Hopeless | Refused]]:
        """Claim in one commit; what Postgres refuses is halved until the bad delivery stands alone."""
        incarnation = self._life.incarnation
        assert incarnation is not None  # noqa: S101 -- `_come_to_life` was here
        try:
            with self._life.transaction() as cursor:
                refused, rings = continuations.bear(cursor, [offer.what for offer in batch], self._settings)
                wanted = {o.task_id: o.token for o in batch if o.task_id not in refused and o.task_id not in rings}
                fates = claims.claim(cursor, wanted, incarnation=incarnation, agent_id=self._life.identity.agent_id)
                found = {task_id: self._judged(cursor, fate) for task_id, fate in fates.items()}
            self._ringer.ring(rings.values())
        except (RefusedData, LostRace) as error:
            if len(batch) > 1:
                half = len(batch) // 2
                return self._claimed(batch[:half]) + self._claimed(batch[half:])
            if isinstance(error, LostRace):
                return self._claimed(batch)
            return [(batch[0], Refused(str(error)))]
        answers: dict[str, Fate | Hopeless | Refused] = {**found}
        answers |= {task_id: NotDue(task_id) for task_id in rings}
        answers |= {task_id: Refused(why) for task_id, why in refused.items()}
        return [(offer, answers[offer.task_id]) for offer in batch]

    def _judged(self, cursor: Cursor, fate: Fate) -> Fate | Hopeless:
        """A claim of a work type that this agent does not know, and nobody has known for long, is hopeless."""
        if not isinstance(fate, Claim) or fate.work_type in self._reader.celery_tasks:
            return fate
        within = self._settings.unknown_after
        return fate if may_wait(cursor, fate.task_id, fate.work_type, within=within) else Hopeless(fate)

    def _condemn(self) -> None:
        while self._condemned:
            task, reason = self._condemned[0].task, self._condemned[0].reason
            with suppress(RefusedData, LostRace), self._life.transaction() as cursor:
                continuations.bear_condemned(cursor, task, reason, self._settings)
            del self._condemned[0]

    def _mark(self) -> None:
        now = time.monotonic()
        begun = {(s.task_id, s.execution): now - s.at for s in self._started if (s.task_id, s.execution) in self._held}
        if begun:
            with self._life.transaction() as cursor:
                claims.mark_started(cursor, begun)
        self._started = []

    # What comes by itself

    def _tick(self) -> None:
        now = time.monotonic()
        incarnation = self._life.incarnation
        assert incarnation is not None  # noqa: S101 -- `_come_to_life` was here
        if now - self._beat_at >= self._settings.heartbeat_seconds:
            self._life.beat(self._life.identity.queues, self._life.identity.slots)
            self._beat_at = now
        if self._held:
            with self._life.transaction() as cursor:
                asked = claims.asked_to_stop(cursor, incarnation)
            for key, since in asked.items():
                self._mailbox.post(lambda k=key, s=since: self.on_cancel(k, s))  # type: ignore[misc]
        if settled := [paid for paid in self._paid if now - paid.at >= PAID_AFTER]:
            self._paid = [paid for paid in self._paid if paid not in settled]
            if believed := [paid.task_id for paid in settled if paid.still_connected()]:
                with self._life.transaction() as cursor:
                    clear_debts(cursor, believed)


def _one_a_task(finished: Sequence[Finished]) -> list[Finished]:
    """The first of each task: one statement moves a row once."""
    first: dict[str, Finished] = {}
    for item in finished[:GATHER]:
        first.setdefault(item.settlement.task_id, item)
    return list(first.values())


def _twins(offers: Sequence[Offer]) -> list[Offer]:
    """Deliveries of a task, or of a request_id, that an earlier one of the batch is about."""
    seen: set[str] = set()
    twins = []
    for offer in offers:
        names = {offer.task_id}
        if isinstance(offer.what, Direct):
            names.add("request " + offer.what.task.request_id)
        if names & seen:
            twins.append(offer)
        seen |= names
    return twins


def _failed_instead(finished: Finished, error: Exception) -> Finished:
    """The same run as a failure, because the ledger cannot keep what it returned."""
    verdict = Failed(WorkError("RefusedData", f"the ledger cannot keep the result: {error}", "chiffon"))
    return replace(
        finished,
        settlement=replace(finished.settlement, verdict=verdict, children=None, meta=None),
        report=Report(verdict=verdict),
    )
