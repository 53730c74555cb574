"""What the ledger says, by SQL: psycopg2 and nothing of Chiffon."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg2
from psycopg2.extras import RealDictCursor


@dataclass(frozen=True)
class LedgerReader:
    """Reads the ledger at ``url``, over a new connection each time."""

    url: str

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Return the rows of a query."""
        with (
            contextlib.closing(psycopg2.connect(self.url)) as session,
            session.cursor(cursor_factory=RealDictCursor) as cursor,
        ):
            cursor.execute(query, values)
            return [dict(row) for row in cursor.fetchall()]

    def count(self, table: str) -> int:
        """Return how many rows ``table`` has."""
        return int(self.rows(f"SELECT count(*) AS many FROM {table}")[0]["many"])

    def executions(self, task_id: str) -> list[dict[str, Any]]:
        """Return the log of a task's real runs, the first one first."""
        return self.rows("SELECT * FROM executions WHERE task_id = %s ORDER BY execution", task_id)

    def task(self, task_id: str) -> dict[str, Any] | None:
        """Return a task's row, or None."""
        return next(iter(self.rows("SELECT * FROM tasks WHERE task_id = %s", task_id)), None)

    def statuses(self) -> dict[str, int]:
        """Return how many tasks there are in each state."""
        found = self.rows("SELECT status, count(*) AS many FROM tasks GROUP BY status")
        return {row["status"]: row["many"] for row in found}

    def outcomes(self, task_id: str) -> list[str | None]:
        """Return how each of a task's real runs came out, the first one first; None: not yet."""
        return [row["outcome"] for row in self.executions(task_id)]

    def now(self) -> datetime:
        """Return the moment, by Postgres' clock."""
        found: datetime = self.rows("SELECT clock_timestamp() AS now")[0]["now"]
        return found

    def living(self, agent_id: str, pid: int) -> bool:
        """Tell whether that process has registered as an agent of that name, and has not said goodbye."""
        return bool(
            self.rows("SELECT 1 FROM agents WHERE agent_id = %s AND pid = %s AND stopped_at IS NULL", agent_id, pid)
        )

    def silence_of(self, agent_id: str) -> float:
        """Return the seconds since an agent's last heartbeat, by Postgres' clock."""
        query = "SELECT extract(epoch FROM clock_timestamp() - max(last_heartbeat_at)) AS seconds FROM agents"
        return float(self.rows(f"{query} WHERE agent_id = %s", agent_id)[0]["seconds"])
