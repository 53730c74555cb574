"""Two messages with one request_id: the second takes the first's end, and never executes."""

from __future__ import annotations

from chiffon.domain.states import ENDS
from chiffon.domain.tasks import NewTask
from chiffon.domain.values import canonical
from chiffon.ledger.connect import Cursor
from chiffon.ledger.effects import after_end, hold, wake

_ENDS = ", ".join(f"'{state}'" for state in sorted(ENDS))

# name: follow  -- (new) -> pending behind another task, or at once the end that it has reached
# The first task's row is locked before, so that it cannot end between the look and the insert.
_FOLLOW = f"""
WITH first AS (
  SELECT task_id, status, finished_at, error FROM tasks WHERE task_id = %(first)s FOR UPDATE
), born AS (
  INSERT INTO tasks (task_id, request_id, trace_id, work_type, status, priority, queue, parameters, arguments, canvas,
                     labels, fingerprint, origin, follows, finished_at, error)
  SELECT %(task_id)s, %(request_id)s, %(trace_id)s, %(work_type)s,
         CASE WHEN first.status IN ({_ENDS}) THEN first.status ELSE 'pending' END,
         %(priority)s, %(queue)s, %(parameters)s::jsonb, %(arguments)s::jsonb, %(canvas)s::jsonb, '{{}}'::jsonb,
         %(fingerprint)s, %(origin)s, first.task_id, first.finished_at,
         CASE WHEN first.status IN ({_ENDS}) THEN first.error END
    FROM first
  ON CONFLICT (task_id) DO NOTHING
  RETURNING task_id, status, follows, trace_id, priority, canvas, history_no
), kept AS (
  INSERT INTO results (task_id, status, result, traceback, date_done)
  SELECT b.task_id, r.status, r.result, r.traceback, r.date_done
    FROM born b JOIN results r ON r.task_id = b.follows WHERE b.status IN ({_ENDS})
  ON CONFLICT (task_id) DO NOTHING
), told AS (
  INSERT INTO task_history (task_id, number, status, detail)
  SELECT task_id, 1, status, 'has the request_id of ' || follows FROM born
){after_end(f"SELECT task_id, trace_id, priority, canvas, history_no FROM born WHERE status IN ({_ENDS})")}
SELECT status FROM born
"""


def follow(cursor: Cursor, task: NewTask, first: str) -> str | None:
    """Write the task down behind ``first``; its status, or None if its own id is taken."""
    hold(cursor, [first])
    cursor.execute(
        _FOLLOW,
        {
            "first": first,
            "task_id": task.task_id,
            "request_id": task.request_id,
            "trace_id": task.trace_id,
            "work_type": task.work_type,
            "priority": task.priority,
            "queue": task.queue,
            "parameters": canonical(task.parameters),
            "arguments": canonical(task.arguments),
            "canvas": canonical(task.canvas),
            "fingerprint": task.fingerprint,
            "origin": task.origin,
        },
    )
    row = cursor.fetchone()
    if row is None:
        return None
    if row[0] in ENDS:
        wake(cursor, [task.task_id])
    return str(row[0])
