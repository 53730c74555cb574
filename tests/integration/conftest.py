"""What the tests against one real service share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from chiffon.ledger import migrate
from tests.bench import Bench
from tests.chaos.relay import Relays
from tests.doubt import Doubt

NEXT = "9999"
"""The revision that the next release has, and this one has not."""


@pytest.fixture
def next_release(tmp_path: Path) -> Path:
    """The migrations of the next release: one more than today."""
    scripts = tmp_path / "migrations"
    shutil.copytree(migrate._SCRIPTS, scripts)
    (scripts / "versions" / "next.py").write_text(
        f"revision, down_revision, branch_labels, depends_on = {NEXT!r}, {migrate.head()!r}, None, None\n"
        "def upgrade(): pass\ndef downgrade(): pass\n"
    )
    return scripts


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
