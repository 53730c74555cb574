"""What the tests against one real service share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bench import Bench
from tests.chaos.relay import Relays
from tests.doubt import Doubt


@pytest.fixture
def bench(ledger_url: str) -> Iterator[Bench]:
    """A ledger with hands on it."""
    lent = Bench(ledger_url)
    yield lent
    lent.close()


@pytest.fixture(scope="session")
def relays() -> Iterator[Relays]:
    """The thread in which relays run."""
    running = Relays()
    yield running
    running.close()


@pytest.fixture
def doubt(bench: Bench, relays: Relays) -> Iterator[Doubt]:
    """The bench, by a way on which the answer to a commit can be lost."""
    found = Doubt(bench, relays)
    yield found
    found.close()
