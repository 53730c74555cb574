"""Reading an end, for whoever sees to what it sets off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chiffon.domain.states import ENDS
from chiffon.ledger.connect import Cursor
from chiffon.ledger.effects import named_after


@dataclass(frozen=True)
class End:
    """A task that has ended, with what Celery's canvas needs to go on."""

    work_type: str
    status: str
    priority: int
    arguments: list[Any]
    parameters: dict[str, Any]
    canvas: dict[str, Any]
    error: dict[str, Any]
    result: Any


# name: end  -- reads a task that has ended, unless it has ended anew since the end that somebody sees to
_END = f"""
SELECT t.work_type, t.status, t.priority, t.arguments, t.parameters, t.canvas, coalesce(t.error, '{{}}'), r.result
  FROM tasks t LEFT JOIN results r USING (task_id)
 WHERE t.task_id = %(task_id)s AND t.status IN ({", ".join(f"'{state}'" for state in sorted(ENDS))})
   AND {named_after("t.task_id", "t.history_no")} = %(after)s
"""


def read(cursor: Cursor, task_id: str, *, after: str) -> End | None:
    """The end of a task; None if it no longer has one, because it was replayed meanwhile, or is gone.

    ``after``: the id of the task that sees to it. It is made of that end, so that no other is taken for it.
    """
    cursor.execute(_END, {"task_id": task_id, "after": after})
    row = cursor.fetchone()
    return End(*row) if row else None
