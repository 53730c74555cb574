"""Dead letters: look at them, have their work done again, or let them go. One hand at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from chiffon.bus import dead_letters as bus
from chiffon.bus.connect import Connection
from chiffon.bus.dead_letters import Discard, Keep, Page, Republished, Verdict
from chiffon.bus.postmortem import DeadLetter
from chiffon.bus.topology import Topology
from chiffon.config import Settings
from chiffon.dispatch.broker import asking
from chiffon.dispatch.identify import task_of, work_type_of
from chiffon.dispatch.replay import replay
from chiffon.dispatch.ring import Ringer
from chiffon.domain.errors import TaskNotFound, WrongState
from chiffon.domain.states import REPLAYABLE
from chiffon.domain.work import registry
from chiffon.ledger import control
from chiffon.ledger.condemn import is_unread
from chiffon.ledger.connect import Ledger
from chiffon.ledger.hands import DEAD_LETTERS, one_hand

_PATIENCE = 10.0  # seconds for each answer of the broker


@dataclass(frozen=True)
class Chosen:
    """Which letters are meant: those of ``ids``, or those that fit every other field that is not None; all by default.

    ``reason``: part of it. ``until``: those that died before.
    """

    ids: frozenset[str] | None = None
    queue: str | None = None
    reason: str | None = None
    task_id: str | None = None
    work_type: str | None = None
    until: datetime | None = None

    def fits(self, letter: DeadLetter) -> bool:
        """Whether ``letter`` is meant."""
        return (
            (self.ids is None or letter.id in self.ids)
            and (self.queue is None or letter.queue == self.queue)
            and (self.reason is None or self.reason in (letter.reason or ""))
            and (self.task_id is None or task_of(letter) == self.task_id)
            and (self.work_type is None or work_type_of(letter) == self.work_type)
            and (self.until is None or (letter.died_at is not None and letter.died_at < self.until))
        )


@dataclass(frozen=True)
class Kept:
    """A letter that should have gone and stays, and why."""

    id: str
    why: str


@dataclass(frozen=True)
class Handled:
    """What became of the chosen letters, copies of one counted once.

    ``replayed``: their work is under way again. ``settled``: their task had been replayed or had ended meanwhile, so
    that only the letter went. ``missing``: ids that no letter has. ``unconfirmed``: stayed too, since the broker did
    not confirm what was published in their place; ``why`` says more.
    """

    matched: int = 0
    replayed: int = 0
    discarded: int = 0
    settled: int = 0
    kept: Sequence[Kept] = ()
    missing: Sequence[str] = ()
    unconfirmed: int = 0
    why: str | None = None


def look(ledger: Ledger, settings: Settings, chosen: Chosen, *, limit: int, after: str | None = None) -> Page:
    """Up to ``limit`` letters that fit, behind the one whose id is ``after``; all stay where they are.

    Raises:
        LetterGone: no letter that fits has the id ``after``.
        BrokerUnavailable, LedgerUnavailable, Busy: nothing can be seen now.
    """
    with _hand(ledger, settings) as connection:
        return bus.look(connection, chosen.fits, after=after, limit=limit)


def count(ledger: Ledger, settings: Settings, chosen: Chosen) -> Handled:
    """How many letters a replay or discard would touch. Raises as `look` does."""
    return _all_alike(ledger, settings, chosen, Keep())


def discard_letters(ledger: Ledger, settings: Settings, chosen: Chosen) -> Handled:
    """Let the chosen letters go. Raises as `look` does; what had gone by then is gone."""
    told = _all_alike(ledger, settings, chosen, Discard())
    return replace(told, discarded=told.matched)


def replay_letters(
    ledger: Ledger, settings: Settings, ringer: Ringer, chosen: Chosen, *, body: bytes | None = None
) -> Handled:
    """Have the work of the chosen letters done again.

    A letter of a task of the ledger: the task's step to `pending` is committed before the letter goes. Any other, and
    one that could not be read, is published again, and goes once the broker has confirmed. ``body``: a mended one to
    publish instead.

    Raises:
        BrokerUnavailable, LedgerUnavailable, Busy: as `look`; each letter was either replayed or stays.
    """
    hand = _ReplayingHand(ledger, ringer, settings.ring_lease, body)
    with _hand(ledger, settings) as connection:
        taken = bus.take(connection, chosen.fits, hand.decide)
    return replace(
        _told(chosen, hand.met),
        replayed=hand.reopened + taken.republished,
        settled=hand.settled,
        kept=hand.kept,
        unconfirmed=taken.unconfirmed,
        why=taken.why or None,
    )


class _ReplayingHand:
    """Decides letter by letter, and counts."""

    def __init__(self, ledger: Ledger, ringer: Ringer, lease: float, body: bytes | None) -> None:
        self._ledger = ledger
        self._ringer = ringer
        self._lease = lease
        self._body = body
        self.met: list[str] = []
        self.kept: list[Kept] = []
        self.reopened = 0
        self.settled = 0

    def decide(self, letter: DeadLetter) -> Verdict:
        """What is done with the letter."""
        self.met.append(letter.id)
        task_id = task_of(letter)
        if task_id is None or (not letter.doorbell and not self._is_known(task_id)):
            return Republished.of(letter.again(self._body))
        if self._body is not None:
            return self._keep(letter, f"its parameters are those of task {task_id} in the ledger: dispatch it anew")
        try:
            ring = replay(self._ledger, task_id, lease=self._lease)
        except TaskNotFound:
            return self._keep(letter, f"the ledger no longer has its task {task_id}")
        except WrongState as error:
            if self._status(task_id) in REPLAYABLE:
                return self._keep(letter, str(error))
            self.settled += 1
            return Discard()
        self.reopened += 1
        self._ringer.ring([ring])
        return Discard()

    def _status(self, task_id: str) -> str | None:
        with self._ledger.transaction() as cursor:
            found = control.status(cursor, task_id)
        return found[0] if found else None

    def _is_known(self, task_id: str) -> bool:
        """Whether the ledger has more of a task than that its message could not be read."""
        with self._ledger.transaction() as cursor:
            return control.status(cursor, task_id) is not None and not is_unread(cursor, task_id)

    def _keep(self, letter: DeadLetter, why: str) -> Verdict:
        self.kept.append(Kept(letter.id, why))
        return Keep()


def _all_alike(ledger: Ledger, settings: Settings, chosen: Chosen, verdict: Verdict) -> Handled:
    met: list[str] = []

    def decide(letter: DeadLetter) -> Verdict:
        met.append(letter.id)
        return verdict

    with _hand(ledger, settings) as connection:
        bus.take(connection, chosen.fits, decide)
    return _told(chosen, met)


def _told(chosen: Chosen, met: Sequence[str]) -> Handled:
    return Handled(matched=len(met), missing=sorted((chosen.ids or frozenset()) - set(met)))


@contextmanager
def _hand(ledger: Ledger, settings: Settings) -> Iterator[Connection]:
    """The one hand in ``dlx_queue``, which is there even on a broker that was wiped."""
    with (
        one_hand(ledger, DEAD_LETTERS),
        asking(settings.broker_url, name="chiffon dead letters", patience=_PATIENCE) as connection,
    ):
        Topology(settings.queue_type, registry.queues).declare(connection)
        yield connection
