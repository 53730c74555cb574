"""What a scenario does to the ledger behind everybody's back, by SQL: psycopg2 and nothing of Chiffon."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import psycopg2


@dataclass(frozen=True)
class LedgerWriter:
    """Writes into the database at ``url``, over a new connection each time."""

    url: str

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement, commit, and return the rows that it gave, if it gives any."""
        with contextlib.closing(psycopg2.connect(self.url)) as session, session, session.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []
