"""Each write of the ledger, committed without an answer and repeated as its caller does: it has one effect."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.bench import Bench
from tests.doubt import TABLES, Doubt
from tests.racing import until
from tests.services import Services
from tests.unanswered import results, tasks
from tests.unanswered.write import Write


@pytest.fixture(scope="module")
def shared_url(services: Services) -> Iterator[str]:
    """The URL of one ledger for all of these tests: a database for each would take longer than the test."""
    with services.fresh_database(services.migrated) as url:
        yield url


@pytest.fixture
def bench(shared_url: str) -> Iterator[Bench]:
    """That ledger, empty."""
    lent = Bench(shared_url)
    tables = [name for (name,) in lent.sql(TABLES)]
    lent.sql(f"TRUNCATE {', '.join(tables)}")
    yield lent
    lent.close()


@pytest.mark.parametrize("make", [*tasks.WRITES, *results.WRITES], ids=lambda make: make.__name__)
def test_a_write_that_is_repeated_because_nobody_answered_has_one_effect(
    make: Callable[[Bench], Write], doubt: Doubt
) -> None:
    write = make(doubt.bench)
    before = doubt.everything(), write.beside()

    doubt.unanswered(lambda: write.do(doubt.ledger))
    until(lambda: (doubt.everything(), write.beside()) != before)  # it has happened; a session takes a moment to end
    once_without = doubt.everything(write.moves)

    again = write.do(doubt.ledger)
    assert doubt.everything(write.moves) == once_without
    assert again == write.again
    write.check()
