"""A way to the ledger on which a commit happens and nobody is told; and everything that the ledger says, to compare."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

from chiffon.domain.errors import LedgerUnavailable
from chiffon.ledger.connect import Ledger
from tests.bench import Bench
from tests.chaos.relay import COMMIT, Relays
from tests.proxy import through

T = TypeVar("T")

TABLES = """
SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' AND table_name <> 'alembic_version'
"""


class Doubt:
    """A ledger behind a relay. ``bench``: the same one, straight. ``ledger`` and ``url``: the way that is unsafe."""

    def __init__(self, bench: Bench, relays: Relays) -> None:
        parts = urlsplit(bench.url)
        self.bench = bench
        self._relay = relays.before(str(parts.hostname), int(parts.port or 5432))
        self.url = through(self._relay.port, bench.url)
        self.ledger = Ledger(self.url, pool_size=2)

    def unanswered(self, do: Callable[[], T], after: bytes = b"") -> None:
        """Have something done of which nobody hears. ``after``: what stands in its transaction, if not the first."""
        met = self._relay.swallow_answer(after, COMMIT)
        with pytest.raises(LedgerUnavailable):
            do()
        assert met.done(), "what failed was no commit"

    def lose_next(self, after: bytes = b"") -> None:
        """Have the next commit unanswered, whoever makes it."""
        self._relay.swallow_answer(after, COMMIT)

    def slow_down(self, seconds: float) -> None:
        """Have everything take so long, each way."""
        self._relay.slow_down(seconds)

    def everything(self, but: Collection[str] = ()) -> dict[str, list[str]]:
        """Every row of every table, without the columns ``but``."""
        tables = [table for (table,) in self.bench.sql(TABLES)]
        return {table: sorted(self._rows(table, but)) for table in tables}

    def _rows(self, table: str, but: Collection[str]) -> list[str]:
        rows: list[tuple[dict[str, Any]]] = self.bench.sql(f"SELECT to_jsonb(t) FROM {table} t")
        return [json.dumps({k: v for k, v in row.items() if k not in but}, sort_keys=True) for (row,) in rows]

    def close(self) -> None:
        """Let go."""
        self.ledger.close()
