"""What tests of traps and faults ask for, beside the scenarios' fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.desk import Desk
from tests.e2e.diary import Diary
from tests.e2e.nodes import BrokerNode, LedgerNode
from tests.traps.stock import Stock


@pytest.fixture
def desk(celery_backend: LedgerNode) -> Iterator[Desk]:
    """Takes work in."""
    found = Desk(celery_backend.url)
    yield found
    found.close()


@pytest.fixture
def stock(celery_broker: BrokerNode, tmp_path: Path) -> Iterator[Stock]:
    """Stock Celery on the same broker, its queue declared."""
    found = Stock(celery_broker.url, tmp_path)
    found.declare()
    yield found
    found.end()


@pytest.fixture
def stock_diary(tmp_path: Path) -> Diary:
    """The file that stock Celery's work writes into."""
    return Diary(tmp_path / "stock-diary")
