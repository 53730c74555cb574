"""Steps that people ask for: cancel, replay."""

from __future__ import annotations

from chiffon.domain.states import REPLAYABLE, WAITING
from chiffon.domain.tasks import Ring
from chiffon.ledger.connect import Cursor
from chiffon.ledger.effects import TAIL, hold, wake
from chiffon.ledger.planned import DURABLY, Planned
from chiffon.ledger.rings import RING_COLUMNS, RING_NAMES
from chiffon.ledger.settle import celery_error_sql, celery_state_sql

_WAITING = ", ".join(f"'{state}'" for state in sorted(WAITING))
_REPLAYABLE = ", ".join(f"'{state}'" for state in sorted(REPLAYABLE))

# name: cancel waiting  -- scheduled | pending | queued | retrying -> cancelled
_CANCEL_WAITING = Planned(
    "cancel_waiting",
    f"""
WITH waiting AS (
  SELECT task_id FROM tasks WHERE task_id = %(task_id)s AND status IN ({_WAITING}) FOR UPDATE
), ended AS (
  UPDATE tasks t
     SET status = 'cancelled', finished_at = clock_timestamp(), cancel_requested_at = clock_timestamp(),
         next_ring_at = NULL, history_no = t.history_no + 1,
         error = '{{"type": "TaskRevokedError", "module": "celery.exceptions", "message": "cancelled"}}'
    FROM waiting w WHERE t.task_id = w.task_id
  RETURNING t.task_id, t.request_id, t.trace_id, t.priority, t.canvas, true AS uncaught, t.status, t.execution,
            NULL::text AS agent_id, t.finished_at, t.history_no,
            t.error, 'cancelled before it ran' AS detail, {celery_state_sql("'cancelled'")} AS celery_state,
            {celery_error_sql("t.error")} AS result, NULL AS traceback, NULL::jsonb AS children
) {TAIL}
SELECT task_id FROM ended
""",
    before=(DURABLY,),
)

# name: ask to stop  -- running: every statement that leaves `running` reads it
_ASK_TO_STOP = Planned(
    "ask_to_stop",
    """
WITH asked AS (
  UPDATE tasks SET cancel_requested_at = clock_timestamp(), history_no = history_no + 1
   WHERE task_id = %(task_id)s AND status = 'running' AND cancel_requested_at IS NULL
  RETURNING task_id, history_no, execution, agent_id
)
INSERT INTO task_history (task_id, number, status, execution, agent_id, detail)
SELECT task_id, history_no, 'running', execution, agent_id, 'asked to stop' FROM asked
""",
    before=(DURABLY,),
)

# name: status  -- reads where a task stands
_STATUS = "SELECT status, cancel_requested_at IS NOT NULL FROM tasks WHERE task_id = %(task_id)s"

# name: may go on  -- reads whether an execution still holds its task, and nobody asked for it to stop
_MAY_GO_ON = """
SELECT FROM tasks
 WHERE task_id = %(task_id)s AND execution = %(execution)s AND status = 'running' AND cancel_requested_at IS NULL
"""

# name: take key again  -- the key of a replayed task must be its own, free or expired
_TAKE_KEY_AGAIN = """
INSERT INTO request_keys AS k (request_id, task_id, fingerprint)
SELECT request_id, task_id, fingerprint FROM tasks WHERE task_id = %(task_id)s
ON CONFLICT (request_id) DO UPDATE
   SET task_id = excluded.task_id, fingerprint = excluded.fingerprint, expires_at = NULL
 WHERE k.expires_at <= clock_timestamp() OR k.task_id = excluded.task_id
RETURNING request_id
"""

# name: replay  -- failed | cancelled | timed_out | expired | dead_lettered -> pending, counters anew
# The execution number goes on: an old execution must never find its number again.
_REPLAY = Planned(
    "replay",
    f"""
WITH again AS (
  UPDATE tasks t
     SET status = 'pending', ring_no = t.ring_no + 1,
         next_ring_at = clock_timestamp() + make_interval(secs => %(lease)s), history_no = t.history_no + 1,
         retries = 0, crashes = 0, agent_deaths = 0, give_backs = 0, cancel_requested_at = NULL, error = NULL,
         expires_at = NULL, follows = NULL, dead_letter_owed = false, debt_leased_until = NULL, progress = NULL,
         run_at = NULL, queued_at = NULL, started_at = NULL, finished_at = NULL, agent_id = NULL
   WHERE t.task_id = %(task_id)s AND t.status IN ({_REPLAYABLE})
  RETURNING {RING_COLUMNS}, t.history_no
), forgotten AS (
  DELETE FROM results r USING again a WHERE r.task_id = a.task_id
), told AS (
  INSERT INTO task_history (task_id, number, status, detail)
  SELECT task_id, history_no, 'pending', 'replayed' FROM again
)
SELECT {RING_NAMES} FROM again
""",
    before=(DURABLY,),
)


def cancel_waiting(cursor: Cursor, task_id: str, *, ttl: float) -> bool:
    """End a task that waits. False: it does not wait."""
    hold(cursor, [task_id])
    _CANCEL_WAITING.execute(cursor, {"task_id": task_id, "ttl": ttl})
    if cursor.fetchone() is None:
        return False
    wake(cursor, [task_id])
    return True


def ask_to_stop(cursor: Cursor, task_id: str) -> bool:
    """Ask for a running task to be stopped. False: it does not run, or was asked before."""
    _ASK_TO_STOP.execute(cursor, {"task_id": task_id})
    return bool(cursor.rowcount)


def status(cursor: Cursor, task_id: str) -> tuple[str, bool] | None:
    """A task's status, and whether somebody asked for it to be cancelled; None if there is no such task."""
    cursor.execute(_STATUS, {"task_id": task_id})
    row: tuple[str, bool] | None = cursor.fetchone()
    return row


def may_go_on(cursor: Cursor, task_id: str, execution: int) -> bool:
    """Whether an execution is still wanted. False: somebody asked, or it has been superseded."""
    cursor.execute(_MAY_GO_ON, {"task_id": task_id, "execution": execution})
    return cursor.fetchone() is not None


def take_key_again(cursor: Cursor, task_id: str) -> bool:
    """Hold the task's ``request_id`` again. False: another task has it by now."""
    cursor.execute(_TAKE_KEY_AGAIN, {"task_id": task_id})
    return cursor.fetchone() is not None


def replay(cursor: Cursor, task_id: str, *, lease: float) -> Ring | None:
    """Open an ended task again, its first ring leased to the caller for ``lease`` seconds. None: it is no such end."""
    _REPLAY.execute(cursor, {"task_id": task_id, "lease": lease})
    row = cursor.fetchone()
    return Ring(*row) if row else None
