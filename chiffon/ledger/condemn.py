"""Condemning: what cannot be run at all ends before it is claimed."""

from __future__ import annotations

from collections.abc import Sequence

from chiffon.domain.verdicts import WorkError
from chiffon.ledger.connect import Cursor
from chiffon.ledger.effects import TAIL, hold, wake
from chiffon.ledger.planned import DURABLY, Planned
from chiffon.ledger.settle import celery_error_sql, celery_state_sql, error_json

UNREADABLE = "chiffon.unreadable"
"""The work type of a task whose message, or step, could not be read. Nobody knows it: without its parameters, no task
of a known type may be run.
"""

# name: condemn  -- pending | queued | retrying -> dead_lettered
_CONDEMN = Planned(
    "condemn",
    f"""
WITH doomed AS (
  SELECT task_id FROM tasks WHERE task_id = %(task_id)s AND status IN ('pending', 'queued', 'retrying') FOR UPDATE
), ended AS (
  UPDATE tasks t
     SET status = 'dead_lettered', finished_at = clock_timestamp(), next_ring_at = NULL, run_at = NULL,
         history_no = t.history_no + 1, error = %(error)s::jsonb, dead_letter_owed = %(owed)s
    FROM doomed d WHERE t.task_id = d.task_id
  RETURNING t.task_id, t.request_id, t.trace_id, t.priority, t.canvas, true AS uncaught, t.status, t.execution,
            NULL::text AS agent_id, t.finished_at, t.history_no,
            t.error, t.error ->> 'message' AS detail, {celery_state_sql("'dead_lettered'")} AS celery_state,
            {celery_error_sql("t.error")} AS result, NULL AS traceback, NULL::jsonb AS children
) {TAIL}
SELECT task_id FROM ended
""",
    before=(DURABLY,),
)

# name: make way  -- deletes what was condemned unread: of that task nothing is known but its id
_MAKE_WAY = """
WITH gone AS (
  DELETE FROM tasks WHERE task_id = ANY(%(task_ids)s) AND work_type = %(unreadable)s AND origin = 'message'
     AND status = 'dead_lettered' AND execution = 0
  RETURNING task_id
), kept AS (
  DELETE FROM results r USING gone WHERE r.task_id = gone.task_id
), told AS (
  DELETE FROM task_history h USING gone WHERE h.task_id = gone.task_id
)
SELECT task_id FROM gone
"""

# name: is unread  -- reads whether nothing is known of a task but its id
_IS_UNREAD = "SELECT FROM tasks WHERE task_id = %(task_id)s AND work_type = %(unreadable)s"

# name: may wait  -- reads whether some agent may still come that knows the work type
_MAY_WAIT = """
SELECT EXISTS (
    SELECT FROM agents WHERE %(work_type)s = ANY(work_types)
       AND last_heartbeat_at > clock_timestamp() - make_interval(secs => %(within)s))
  OR EXISTS (
    SELECT FROM tasks WHERE task_id = %(task_id)s
       AND created_at > clock_timestamp() - make_interval(secs => %(within)s))
"""


def condemn(cursor: Cursor, task_id: str, error: WorkError, *, owed: bool, ttl: float) -> bool:
    """End a task that cannot be run. ``owed``: whether its dead letter is still to be published.

    False: it is not waiting to be run.
    """
    hold(cursor, [task_id])
    _CONDEMN.execute(cursor, {"task_id": task_id, "error": error_json(error), "owed": owed, "ttl": ttl})
    if cursor.fetchone() is None:
        return False
    wake(cursor, [task_id])
    return True


def make_way(cursor: Cursor, task_ids: Sequence[str]) -> set[str]:
    """Forget those of the tasks that were condemned unread, for messages of these ids that can be read; which."""
    if not task_ids:
        return set()
    cursor.execute(_MAKE_WAY, {"task_ids": list(task_ids), "unreadable": UNREADABLE})
    return {task_id for (task_id,) in cursor.fetchall()}


def is_unread(cursor: Cursor, task_id: str) -> bool:
    """Whether nothing is known of a task but its id: its message could not be read."""
    cursor.execute(_IS_UNREAD, {"task_id": task_id, "unreadable": UNREADABLE})
    return cursor.fetchone() is not None


def may_wait(cursor: Cursor, task_id: str, work_type: str, *, within: float) -> bool:
    """Whether an agent that knows the work type was seen in the last ``within`` seconds, or the task is younger."""
    cursor.execute(_MAY_WAIT, {"task_id": task_id, "work_type": work_type, "within": within})
    return bool(cursor.fetchone()[0])
