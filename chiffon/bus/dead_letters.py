"""Looking into `dlx_queue` without taking, and taking out of it without losing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

import amqp

from chiffon.bus.confirms import Confirms, Receipt, nothing_taken, publish_apart
from chiffon.bus.connect import Connection
from chiffon.bus.hand import Hand
from chiffon.bus.letters import Letter, Message
from chiffon.bus.postmortem import DeadLetter
from chiffon.domain.errors import LetterGone

_BATCH = 100  # letters published again at once
_PATIENCE = 30.0  # seconds for the confirms of a batch


@dataclass(frozen=True)
class Discard:
    """The letter may go: somebody has decided so, or what it stood for is in the ledger."""


@dataclass(frozen=True)
class Republished:
    """The letter may go once ``message`` is confirmed on ``exchange`` under ``routing_key``."""

    exchange: str
    routing_key: str
    message: Message

    @classmethod
    def of(cls, letter: Letter) -> Republished:
        """The verdict that sends ``letter``."""
        return cls(letter.exchange, letter.routing_key, letter.message)


@dataclass(frozen=True)
class Keep:
    """The letter stays where it is."""


Verdict = Discard | Republished | Keep


@dataclass(frozen=True)
class Taken:
    """How many letters (not copies) were discarded, republished and kept; ``why``: what kept one that should have gone.

    ``unconfirmed``: kept too, because the broker did not confirm what was to take their place.
    """

    discarded: int = 0
    republished: int = 0
    kept: int = 0
    unconfirmed: int = 0
    why: str = ""


@dataclass(frozen=True)
class Page:
    """Some letters, the oldest first: in a queue that heeds priorities, the oldest of the most urgent.

    ``next_after``: the id of what the next page comes after; None at the end.
    """

    letters: Sequence[DeadLetter]
    next_after: str | None


def look(
    connection: Connection,
    wanted: Callable[[DeadLetter], bool] = lambda _: True,
    *,
    after: str | None = None,
    limit: int = 1000,
    max_bytes: int = 64_000_000,
) -> Page:
    """What is ``wanted`` in `dlx_queue`, copies of one task's doorbell once; all of it stays, in order.

    A page begins behind the letter whose id is ``after``, and has at least one, up to ``limit``, and ``max_bytes`` of
    bodies. While this looks nobody else sees the letters: hold the lock that `take` asks for.

    Raises:
        LetterGone: no wanted letter has the id ``after``.
        OSError, amqp.AMQPError: the connection is dead; the broker gives the letters back by itself.
    """
    found: dict[str, DeadLetter] = {}
    before: set[str] = set()
    begun, size = after is None, 0
    with Hand(connection) as hand:
        for _, letter in hand.letters(hand.ready()):
            if letter.id in before or not wanted(letter):
                continue
            if not begun:
                before.add(letter.id)
                begun = letter.id == after
            elif (known := found.get(letter.id)) is not None:
                found[letter.id] = replace(known, copies=known.copies + 1)
            elif found and (len(found) >= limit or size + len(letter.body) > max_bytes):
                return Page(list(found.values()), next(reversed(found)))
            else:
                found[letter.id] = letter
                size += len(letter.body)
    if not begun:
        raise LetterGone(f"no dead letter of this list has the id {after} any more")
    return Page(list(found.values()), None)


def take(
    connection: Connection,
    chosen: Collection[str] | Callable[[DeadLetter], bool],
    handler: Callable[[DeadLetter], Verdict],
) -> Taken:
    """Ask ``handler`` about each chosen letter, once for all its copies, and do as it says.

    A letter is acknowledged only after the handler has returned and, for `Republished`, the broker has confirmed: an
    interruption at any point loses none, and may leave one that was republished. One hand at a time in `dlx_queue`:
    the caller holds a lock, since two hands hide each other's letters. Letters that arrive meanwhile are not seen.

    Args:
        connection: nobody else uses it meanwhile.
        chosen: ids, as `look` gives them, or a predicate.
        handler: what it raises is raised here, after the letters that are undecided went back.

    Raises:
        OSError, amqp.AMQPError: the connection is dead; the broker gives the undecided letters back by itself.
    """
    wanted = chosen if callable(chosen) else _one_of(frozenset(chosen))
    with Hand(connection) as hand:
        sorter = _Sorter(connection, hand)
        for tag, letter in hand.letters(hand.ready()):
            if wanted(letter):
                sorter.add(tag, letter, handler)
        sorter.flush()
        return sorter.taken()


@dataclass
class _Outcome:
    """What became of one id so far. ``tags``: its copies that wait for the confirm of what takes their place."""

    fate: type[Verdict]
    done: bool = False
    tags: list[int] = field(default_factory=list)


class _Sorter:
    """Carries out verdicts: acknowledges at once, or in batches after their confirms."""

    def __init__(self, connection: Connection, hand: Hand) -> None:
        self._connection = connection
        self._hand = hand
        self._outcomes: dict[str, _Outcome] = {}
        self._waiting: dict[str, tuple[Letter, _Outcome]] = {}  # by the message_id that is to be confirmed
        self._confirms: Confirms | None = None
        self._why = ""

    def add(self, tag: int, letter: DeadLetter, handler: Callable[[DeadLetter], Verdict]) -> None:
        """Decide about ``letter``, or treat it as the copy before it was."""
        outcome = self._outcomes.get(letter.id)
        if outcome is None:
            verdict = handler(letter)
            outcome = self._outcomes[letter.id] = _Outcome(type(verdict), done=isinstance(verdict, Discard))
            if isinstance(verdict, Republished):
                self._plan(verdict, outcome)
        if outcome.done:
            self._hand.acknowledge([tag])
        elif outcome.fate is Republished:
            outcome.tags.append(tag)

    def flush(self) -> None:
        """Publish what is planned, and acknowledge what was confirmed."""
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        deadline = time.monotonic() + _PATIENCE
        letters = [letter for letter, _ in waiting.values()]
        receipt = publish_apart(lambda batch: self._attempt(batch, deadline), letters)
        self._why = receipt.why or self._why
        gone: list[int] = []
        for message_id in receipt.confirmed:
            outcome = waiting[message_id][1]
            outcome.done = True
            gone += outcome.tags
        self._hand.acknowledge(gone)

    def taken(self) -> Taken:
        """The counts, after the last flush."""
        counts = Counter((outcome.fate, outcome.done) for outcome in self._outcomes.values())
        stuck = counts[Republished, False]
        return Taken(
            discarded=counts[Discard, True],
            republished=counts[Republished, True],
            kept=counts[Keep, False],
            unconfirmed=stuck,
            why=self._why if stuck else "",
        )

    def _plan(self, verdict: Republished, outcome: _Outcome) -> None:
        message_id = verdict.message.message_id
        if message_id in self._waiting or len(self._waiting) >= _BATCH:
            self.flush()
        self._waiting[message_id] = Letter(verdict.exchange, verdict.routing_key, verdict.message), outcome

    def _attempt(self, letters: Sequence[Letter], deadline: float) -> Receipt:
        """Publish on a channel of its own: one that the broker closes must not take the undecided letters with it."""
        try:
            self._confirms = self._confirms or Confirms(self._connection)
        except (OSError, amqp.AMQPError) as error:
            return nothing_taken(letters, f"the connection to RabbitMQ broke: {error}")
        receipt = self._confirms.publish(letters, deadline)
        if not receipt.usable:
            self._confirms = None
        return receipt


def _one_of(ids: frozenset[str]) -> Callable[[DeadLetter], bool]:
    return lambda letter: letter.id in ids
