"""A desk at the ledger: takes work in without the API, for tests whose subject lies behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from chiffon.config import validated_database_url
from chiffon.dispatch.cancel import Cancelling, cancel
from chiffon.domain.states import ENDS, STEPS, State
from chiffon.ledger.accept import accept
from chiffon.ledger.connect import Ledger
from tests.builders import new_task
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.waiting import PATIENCE, eventually


@dataclass(frozen=True)
class Desk:
    """Accepts work; the agents' sweepers ring for it."""

    url: str
    reader: LedgerReader = field(init=False)
    _ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reader", LedgerReader(self.url))
        object.__setattr__(self, "_ledger", Ledger(validated_database_url(self.url), pool_size=1))

    def place(self, work_type: str, parameters: dict[str, Any], **fields: Any) -> str:
        """Accept one task, due to be rung at once; its id."""
        (task_id,) = self.place_all(work_type, [parameters], **fields)
        return task_id

    def place_all(self, work_type: str, parameters: list[dict[str, Any]], **fields: Any) -> list[str]:
        """Accept many of a kind in one commit; their ids."""
        tasks = [new_task(work_type=work_type, parameters=each, **fields) for each in parameters]
        with self._ledger.transaction() as cursor:
            accept(cursor, tasks, lease=0)
        return [task.task_id for task in tasks]

    def cancel(self, task_id: str) -> Cancelling:
        """Have a task cancelled, as the API does."""
        return cancel(self._ledger, task_id, ttl=300)

    def status(self, task_id: str) -> str:
        """Where a task stands."""
        task = self.reader.task(task_id)
        return str(task["status"]) if task else "absent"

    def wait_for(self, task_id: str, *statuses: str, within: float = PATIENCE) -> dict[str, Any]:
        """The task's row once it has one of ``statuses``. Fails when it ends otherwise."""

        def there() -> dict[str, Any] | None:
            task = self.reader.task(task_id)
            assert task is not None, f"there is no task {task_id}"
            assert task["status"] in statuses or task["status"] not in ENDS, f"it ended otherwise: {task}"
            return task if task["status"] in statuses else None

        found = eventually(f"task {task_id} to be {' or '.join(statuses)}", there, within=within)
        assert found is not None
        return found

    def history(self, task_id: str) -> list[str]:
        """The states a task has been in; the numbers have no gap, and each step is lawful."""
        rows = self.reader.rows("SELECT number, status FROM task_history WHERE task_id = %s ORDER BY number", task_id)
        assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
        states = [State(row["status"]) for row in rows]
        for before, after in pairwise(states):
            assert after in STEPS[before], f"{before} -> {after} in {states}"
        return [str(state) for state in states]

    def outcomes(self, task_id: str) -> list[str | None]:
        """How a task's executions came out, the first one first."""
        return [row["outcome"] for row in self.reader.executions(task_id)]

    def result(self, task_id: str) -> tuple[str, Any] | None:
        """Celery's word for a task's end and its result, or None."""
        rows = self.reader.rows("SELECT status, result FROM results WHERE task_id = %s", task_id)
        return (rows[0]["status"], rows[0]["result"]) if rows else None

    def close(self) -> None:
        """Let go of Postgres."""
        self._ledger.close()
