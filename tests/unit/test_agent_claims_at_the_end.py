"""Who is told to end claims nothing more, waits for what it is claiming, and leaves the rest to others at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from chiffon.agent.clerk import Clerk
from chiffon.agent.commands import Draining, Offer, Unclaimed
from chiffon.agent.consumer import LedgerConsumer
from chiffon.agent.mailbox import Mailbox
from chiffon.agent.reading import Doorbell, Reader
from chiffon.agent.reception import Reception
from chiffon.config import Settings
from chiffon.domain.errors import LedgerUnavailable
from chiffon.domain.tasks import Claim
from chiffon.domain.work import registry
from tests.claimed import CLAIM
from tests.racing import PATIENCE, until


class Life:
    """Of an agent whose ledger answers at once."""

    alive = True
    incarnation = 1
    identity = SimpleNamespace(queues=(), slots=1)

    def __init__(self) -> None:
        self.drains = False

    def drain(self) -> None:
        """Note that it drains."""
        self.drains = True

    @contextmanager
    def statements(self) -> Iterator[Any]:
        """Nothing is found."""
        yield SimpleNamespace(execute=lambda *_: None, fetchall=list, fetchone=lambda: None)

    def beat(self, *_: Any) -> None:
        """Nobody asks."""

    def say_goodbye(self, **_: Any) -> None:
        """Nobody asks."""


class Ledger:
    """Claims what it is asked for, once it is let; ``trouble`` is what it fails with instead, one after the other."""

    def __init__(self, *trouble: Exception) -> None:
        self.asked: list[list[str]] = []
        self.let = threading.Event()
        self._trouble = list(trouble)

    def claim(self, batch: Sequence[Offer]) -> list[tuple[Offer, Claim]]:
        """As `Claimer`."""
        self.asked.append([offer.task_id for offer in batch])
        assert self.let.wait(PATIENCE)
        if self._trouble:
            raise self._trouble.pop(0)
        return [(offer, CLAIM._replace(task_id=offer.task_id)) for offer in batch]


class Desk:
    """A clerk, its mailbox, and what it has said of what was offered."""

    def __init__(self, ledger: Ledger) -> None:
        self.mailbox = Mailbox()
        self.life = Life()
        self.found: dict[str, Any] = {}
        parts: list[Any] = [Settings(), self.life, Reader(registry, {}, 1_000), SimpleNamespace(), self.mailbox]
        self.clerk = Clerk(*parts, mark_after=0.1)
        self.clerk._claimer = ledger  # type: ignore[assignment]
        self.clerk._rounds.go = lambda **_: None  # type: ignore[method-assign]

    def offer(self, *task_ids: str) -> None:
        """Deliveries have come."""
        for task_id in task_ids:
            self.clerk.tell(Offer(Doorbell(task_id), self._note(task_id)))

    def _note(self, task_id: str) -> Callable[[Any], None]:
        return lambda found: self.found.update({task_id: found})

    def kinds(self) -> dict[str, str]:
        """What kind of answer each got."""
        return {task_id: type(found).__name__ for task_id, found in self.found.items()}


@contextmanager
def opened(ledger: Ledger) -> Iterator[Desk]:
    """A desk at which a clerk sits."""
    desk = Desk(ledger)
    desk.clerk.start()
    yield desk
    ledger.let.set()
    assert desk.clerk.stop(PATIENCE)


def test_a_clerk_of_an_agent_that_drains_claims_nothing_more() -> None:
    ledger = Ledger()
    ledger.let.set()
    with opened(ledger) as desk:
        draining = Draining()
        desk.clerk.tell(draining)
        desk.offer("late")
        assert draining.taken.wait(PATIENCE)
        assert until(lambda: desk.mailbox.open() or bool(desk.found))
    assert desk.kinds() == {"late": "Unclaimed"}
    assert ledger.asked == []
    assert desk.life.drains


def test_what_is_being_claimed_has_its_answer_before_draining_is_taken() -> None:
    ledger = Ledger()
    with opened(ledger) as desk:
        desk.offer("claimed")
        assert until(lambda: ledger.asked == [["claimed"]])
        desk.offer("waits")  # with what comes next it is read in one go
        draining = Draining()
        desk.clerk.tell(draining)
        assert not draining.taken.is_set()
        ledger.let.set()
        assert draining.taken.wait(PATIENCE)
        desk.mailbox.open()
    assert ledger.asked == [["claimed"]]
    assert desk.kinds() == {"claimed": "Claim", "waits": "Unclaimed"}


def test_a_claim_whose_answer_was_lost_is_asked_for_again_by_who_drains_and_nothing_else_is() -> None:
    ledger = Ledger(LedgerUnavailable("the answer was lost"))
    with opened(ledger) as desk:
        desk.offer("claimed")
        assert until(lambda: ledger.asked == [["claimed"]])
        draining = Draining()
        desk.clerk.tell(draining)
        desk.offer("late")
        ledger.let.set()
        assert draining.taken.wait(PATIENCE)
        assert until(lambda: desk.mailbox.open() or len(desk.found) == 2)
    assert ledger.asked == [["claimed"], ["claimed"]]
    assert desk.kinds() == {"claimed": "Claim", "late": "Unclaimed"}


def test_what_nobody_has_claimed_waits_again_as_before_it_was_offered() -> None:
    waiting: list[Any] = []
    intake: Any = SimpleNamespace(wait=lambda *what: waiting.append(what), leave=lambda delivery: None)
    nobody: Any = SimpleNamespace()
    reception = Reception(nobody, intake, nobody, nobody, nobody, unknown_after=1.0, is_ending=lambda: True)
    reception._on_fate(nobody, Doorbell("t"), Unclaimed())
    assert waiting == [(nobody, Doorbell("t"))]


@pytest.mark.parametrize("held_up", [False, True], ids=["the ledger answers", "the ledger does not"])
def test_an_agent_that_ends_sees_to_what_it_is_claiming_before_it_waits_for_its_pool(
    held_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chiffon.agent.consumer._CLAIMED_WITHIN", 0.1 if held_up else PATIENCE)
    ledger = Ledger()
    steps: list[str] = []
    with opened(ledger) as desk:
        desk.clerk.tell(Offer(Doorbell("claimed"), lambda found: steps.append(type(found).__name__)))
        assert until(lambda: ledger.asked == [["claimed"]])
        consumer: Any = LedgerConsumer.__new__(LedgerConsumer)
        consumer._watch = SimpleNamespace(stop=lambda: None)
        consumer._clerk, consumer._mailbox = desk.clerk, desk.mailbox
        consumer._drain = SimpleNamespace(begin=lambda: None)
        consumer._runs = SimpleNamespace(give_back_waiting=lambda why: None if held_up else ledger.let.set())
        consumer._intake = SimpleNamespace(put_back_waiting=lambda: steps.append("put back"))
        consumer.blueprint = SimpleNamespace(stop=lambda parent: steps.append("consuming ends"))
        consumer.stop()
    assert steps == [*([] if held_up else ["Claim"]), "consuming ends", "put back"]
