"""What the tests against one real service share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bench import Bench


@pytest.fixture
def bench(ledger_url: str) -> Iterator[Bench]:
    """A ledger with hands on it."""
    lent = Bench(ledger_url)
    yield lent
    lent.close()
