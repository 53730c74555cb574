"""A claimed task that cannot be handed to the pool is dead-lettered, and its debt is known to be paid."""

from __future__ import annotations

from chiffon.agent.commands import Paid
from chiffon.ledger.settle import Fenced, Recorded
from tests.claimed import CLAIM, Books, Channel, delivery, runs_of


def spoilt(books: Books, answer: Recorded | Fenced) -> list[str]:
    """What the broker is told of one, once the ledger has answered so."""
    channel = Channel()
    runs_of(books).spoil(delivery(channel), CLAIM, ValueError("no"))
    books.settlements()[0].reply(answer)
    return channel.told


def test_its_letter_is_not_published_a_second_time() -> None:
    books = Books()
    assert spoilt(books, Recorded("dead_lettered", owes_dead_letter=True, fresh=True)) == ["dead-lettered"]
    [paid] = [command for command in books.commands if isinstance(command, Paid)]
    assert (paid.task_id, paid.execution) == (CLAIM.task_id, CLAIM.execution)
    assert paid.still_connected()
    assert not paid.heard(), "the broker has said nothing since"


def test_one_that_is_somebody_elses_by_now_owes_nothing() -> None:
    books = Books()
    assert spoilt(books, Fenced()) == []
    assert not [command for command in books.commands if isinstance(command, Paid)]
