"""What sees to the ends of others has a time limit of its own, and is run again when it has reached it."""

from __future__ import annotations

import pytest

from chiffon.agent.request import ClaimedRequest
from chiffon.domain.verdicts import GivenBack, TimedOut
from chiffon.ledger.effects import AFTER_END, RELEASE_CHORD
from tests.claimed import CLAIM, LIMIT, Books, Channel, delivery, runs_of


def claimed(work_type: str, books: Books) -> ClaimedRequest:
    """A claimed task on its way to the pool."""
    return runs_of(books)._request(delivery(Channel()), CLAIM._replace(work_type=work_type))


@pytest.mark.parametrize("work_type", [AFTER_END, RELEASE_CHORD])
def test_it_may_wait_for_the_ledger_for_longer_than_work_may_run(work_type: str) -> None:
    request = claimed(work_type, Books())
    assert request.limit > 10 * LIMIT
    assert request.soft_limit is None


@pytest.mark.parametrize("work_type", [AFTER_END, RELEASE_CHORD])
def test_when_its_time_is_over_it_is_given_back(work_type: str) -> None:
    books = Books()
    claimed(work_type, books).time_out()
    verdict = books.settlements()[0].settlement.verdict
    assert isinstance(verdict, GivenBack)
    assert verdict.started


def test_other_work_has_ended_when_its_time_is_over() -> None:
    books = Books()
    claimed("echo", books).time_out()
    assert isinstance(books.settlements()[0].settlement.verdict, TimedOut)
