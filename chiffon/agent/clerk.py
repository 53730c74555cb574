"""The clerk: the one thread of an agent that writes to the ledger, many tasks to a statement."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import structlog

from chiffon.agent import continuations
from chiffon.agent.claiming import Answer, Claimer
from chiffon.agent.commands import Command, Condemned, Draining, Finished, Hopeless, Offer, Paid, Started, Unclaimed
from chiffon.agent.halving import halved
from chiffon.agent.life import Life
from chiffon.agent.mailbox import Mailbox
from chiffon.agent.offers import Offers
from chiffon.agent.reading import Reader
from chiffon.agent.rounds import Rounds
from chiffon.agent.settling import Settler
from chiffon.config import Settings
from chiffon.dispatch.ring import Ringer
from chiffon.dispatch.sweep import DEATHS_PER_CRASH
from chiffon.domain.errors import LedgerUnavailable, SchemaBehind
from chiffon.domain.tasks import Claim
from chiffon.ledger import claims
from chiffon.ledger.failures import LostRace
from chiffon.ledger.settle import Fenced, Recorded

log = structlog.get_logger(__name__)

T = TypeVar("T")

GATHER = 200
"""Claims and settlements that go into one statement, at most."""

CROWD = 16
"""Commands in a round after which more are waited for before the next: so busy an agent has other work meanwhile."""

GATHER_FOR = 0.01
"""Seconds for which they are waited for: a statement costs about the same for ten and for a hundred."""

AT_ONCE = 64
"""Answers that the event loop takes at once, at most: meanwhile no process of the pool is given anything."""

TICK = 0.5
"""Seconds between two looks at what needs no command: heartbeats, cancellations."""

AGAIN_AFTER, AGAIN_AT_MOST = 0.05, 1.0
"""Seconds until the ledger is tried again: at first, for an agent without its lock is soon taken for dead; at last."""


class Clerk:
    """Takes commands from any thread, and answers on the event loop. ``life``: the agent's, for it to use.

    ``mark_after``: seconds after which a run is worth a note that it has begun; 0 where it may end the agent, too.
    """

    def __init__(
        self, settings: Settings, life: Life, reader: Reader, ringer: Ringer, mailbox: Mailbox, *, mark_after: float
    ) -> None:
        self._settings = settings
        self.life = life
        self._settler = Settler(settings, life, reader, ringer)
        self._claimer = Claimer(settings, life, reader, ringer)
        self._mailbox = mailbox
        self._mark_after = mark_after
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._offers = Offers()
        self._finished: list[Finished] = []
        self._started: list[Started] = []
        self._condemned: list[Condemned] = []
        self._held: set[tuple[str, int]] = set()
        self._crowd = 0
        """Commands that came for this round."""
        self._rounds = Rounds(settings, life, mailbox, self._held)
        self._stopping = threading.Event()
        self._draining: Draining | None = None
        self._said_draining = False
        self._ticked_at = 0.0
        self._thread = threading.Thread(target=self._run, name="clerk", daemon=True)
        self.on_lost: Callable[[tuple[str, int]], None] = lambda key: None
        self.on_tick: Callable[[], None] = lambda: None

    @property
    def rounds(self) -> Rounds:
        """What it looks after beside the commands."""
        return self._rounds

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
        pause = AGAIN_AFTER
        while not (self._stopping.is_set() and self._idle()):
            try:
                self._collect()
                if not self.life.alive:
                    self._come_to_life()
                self._work()
                pause = AGAIN_AFTER
            except (LedgerUnavailable, SchemaBehind) as error:
                log.warning("agent_waits_for_ledger", reason=str(error), finished=len(self._finished))
                time.sleep(pause)
                pause = min(2 * pause, AGAIN_AT_MOST)
            except Exception:  # nothing on the wire or in the ledger may end the agent
                log.exception("clerk_failed")
                time.sleep(TICK)
        settings = self._settings
        self.life.say_goodbye(ttl=settings.idempotency_ttl, max_deaths=settings.max_crashes * DEATHS_PER_CRASH)

    def _idle(self) -> bool:
        return self._commands.empty() and not self._finished and not self._condemned

    def _collect(self) -> None:
        """Wait for a command, and take what has gathered behind it."""
        if self.life.alive and not (self._finished or self._offers or self._stopping.is_set()):
            try:
                self._sort(self._commands.get(timeout=self._mark_after if self._started else TICK))
            except queue.Empty:
                return
        if self._crowd >= CROWD and self._commands.qsize() < CROWD and not self._stopping.is_set():
            time.sleep(GATHER_FOR)
        self._crowd = 0
        while len(self._finished) < GATHER and len(self._offers) < GATHER:
            try:
                self._sort(self._commands.get_nowait())
            except queue.Empty:
                return

    def _sort(self, command: Command | None) -> None:
        self._crowd += 1
        match command:
            case Offer():
                self._offers.add(command)
            case Finished():
                self._finished.append(command)
            case Started():
                self._started.append(command)
            case Paid():
                self._rounds.paid.append(command)
            case Draining():
                self._draining = command
            case Condemned():
                self._condemned.append(command)

    def _come_to_life(self) -> None:
        still_ours = self.life.begin()
        for key in self._held - still_ours:
            self._held.discard(key)
            self._mailbox.post(partial(self.on_lost, key))
        self._held &= still_ours
        self._rounds.begin()

    def _work(self) -> None:
        beat = partial(self._rounds.beat, draining=self._draining is not None)
        for step in (self._settle, self._claim, self._tick, self._mark, self._condemn, self._drain):
            _take(beat)  # over a slow link all steps together may take longer than an agent may be silent
            _take(step)

    def _drain(self) -> None:
        if self._draining is None:
            return
        if not self._offers:
            self._draining.taken.set()
        if not self._said_draining:
            self.life.drain()
            self._said_draining = True

    def _settle(self) -> None:
        if not self._finished:
            return
        answers = self._settler.settle(_one_a_task(self._finished))
        done = {id(finished) for finished, _ in answers}
        self._finished = [finished for finished in self._finished if id(finished) not in done]
        self._held.difference_update(finished.key for finished, _ in answers)
        for part in _parts(answers):
            self._mailbox.post(partial(_reply_to_finished, part))

    def _claim(self) -> None:
        if self._draining is not None:
            self._answer([(offer, Unclaimed()) for offer in self._offers.withdrawn()])
        if batch := self._offers.batch(GATHER):
            answers = self._claimer.claim(batch)
            self._answer(answers + self._offers.answered(batch, answers))

    def _answer(self, answers: Sequence[Answer]) -> None:
        for _, found in answers:
            claim = found.claim if isinstance(found, Hopeless) else found
            if isinstance(claim, Claim):
                self._held.add((claim.task_id, claim.execution))
        for part in _parts(answers):
            self._mailbox.post(partial(_reply_to_offers, part))

    def _condemn(self) -> None:
        for _ in range(min(len(self._condemned), GATHER)):  # what is no work may come in floods
            task, reason = self._condemned[0].task, self._condemned[0].reason
            try:
                with self.life.transaction() as cursor:
                    continuations.bear_condemned(cursor, task, reason[:1000], self._settings)
            except (LedgerUnavailable, SchemaBehind, LostRace):
                raise
            except Exception:  # its message is dead-lettered all the same
                log.exception(
                    "condemned_not_written",
                    task_id=task.task_id,
                    request_id=task.request_id,
                    trace_id=task.trace_id,
                )
            del self._condemned[0]

    def _mark(self) -> None:
        """Write down which runs have begun; one that ends within a moment says so itself, when it is settled."""
        now = time.monotonic()
        held = [started for started in self._started if started.key in self._held]
        ripe = [started for started in held if started.reply is not None or now - started.at >= self._mark_after]
        marked = halved(ripe, self._mark_together, lambda started, error: [])
        self._started = [started for started in held if started not in marked]
        for started in marked:
            if started.reply is not None:
                self._mailbox.post(started.reply)

    def _mark_together(self, ripe: Sequence[Started]) -> list[Started]:
        now = time.monotonic()
        with self.life.statements() as cursor:
            claims.mark_started(cursor, {started.key: now - started.at for started in ripe})
        return list(ripe)

    def _tick(self) -> None:
        now = time.monotonic()
        if now - self._ticked_at < TICK:
            return
        self._ticked_at = now
        self._mailbox.post(self.on_tick)
        self._offers.resume(now)
        self._rounds.go(draining=self._draining is not None)


def _take(step: Callable[[], None]) -> None:
    try:
        step()
    except LostRace as error:  # somebody holds a row: it holds up no other step
        log.info("repeated", reason=str(error))


def _parts(answers: Sequence[T]) -> Iterator[Sequence[T]]:
    for begin in range(0, len(answers), AT_ONCE):
        yield answers[begin : begin + AT_ONCE]


def _reply_to_finished(answers: Sequence[tuple[Finished, Recorded | Fenced]]) -> None:
    for finished, answer in answers:
        _reply(partial(finished.reply, answer))


def _reply_to_offers(answers: Sequence[Answer]) -> None:
    for offer, found in answers:
        _reply(partial(offer.reply, found))


def _reply(call: Callable[[], None]) -> None:
    try:
        call()
    except Exception:  # one delivery's trouble must not become another's
        log.exception("reply_failed")


def _one_a_task(finished: Sequence[Finished]) -> list[Finished]:
    """The first of each task: one statement moves a row once."""
    first: dict[str, Finished] = {}
    for item in finished[:GATHER]:
        first.setdefault(item.settlement.task_id, item)
    return list(first.values())
