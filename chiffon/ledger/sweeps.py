"""What the sweeper finds: work whose time has come, work past its time, and work of the dead."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from chiffon.domain.tasks import Ring
from chiffon.ledger.connect import Cursor
from chiffon.ledger.effects import TAIL, unhindered, wake
from chiffon.ledger.planned import DURABLY, NOW, Planned
from chiffon.ledger.rings import RING_COLUMNS
from chiffon.ledger.settle import celery_error_sql, celery_state_sql

LOCK_CLASS = 0x4348_4946
"""The first key of every incarnation's advisory lock; the second is the incarnation."""

WAS_LOST = "its message was lost"
"""What the history says of a task that is rung again although it has waited all the time."""

# name: due  -- scheduled | retrying -> pending, when its time has come; to be rung at once
_DUE = f"""
WITH due AS (
  SELECT task_id FROM tasks
   WHERE status IN ('scheduled', 'retrying') AND run_at <= {NOW}
   ORDER BY run_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), moved AS (
  UPDATE tasks t
     SET status = 'pending', run_at = NULL, next_ring_at = clock_timestamp(), history_no = t.history_no + 1
    FROM due d WHERE t.task_id = d.task_id
  RETURNING t.task_id, t.history_no
)
INSERT INTO task_history (task_id, number, status, detail) SELECT task_id, history_no, 'pending', 'due' FROM moved
"""

# name: late  -- locks what has expired, before it is ended (see `effects.hold`)
_LATE = f"""
SELECT task_id FROM tasks
 WHERE status IN ('scheduled', 'pending', 'queued', 'retrying') AND expires_at <= {NOW}
 ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""

# name: orphans  -- locks the tasks of a dead incarnation, before they are freed
# What somebody holds is left for the next round: nobody lives who could claim for this incarnation.
_ORPHANS = """
SELECT task_id FROM tasks
 WHERE incarnation = %(incarnation)s AND status = 'running' ORDER BY task_id FOR UPDATE SKIP LOCKED
"""

# name: expire  -- scheduled | pending | queued | retrying -> expired, when nobody wants it any more
_EXPIRE = Planned(
    "expire",
    f"""
WITH late AS (
  SELECT task_id FROM tasks WHERE task_id = ANY(%(task_ids)s)
), ended AS (
  UPDATE tasks t
     SET status = 'expired', finished_at = clock_timestamp(), next_ring_at = NULL, history_no = t.history_no + 1,
         error = '{{"type": "TaskRevokedError", "module": "celery.exceptions", "message": "expired"}}'
    FROM late l WHERE t.task_id = l.task_id
  RETURNING t.task_id, t.request_id, t.trace_id, t.priority, t.canvas, true AS uncaught, t.status, t.execution,
            NULL::text AS agent_id, t.finished_at, t.history_no,
            t.error, 'not started in time' AS detail, {celery_state_sql("'expired'")} AS celery_state,
            {celery_error_sql("t.error")} AS result, NULL AS traceback, NULL::jsonb AS children
) {TAIL}
SELECT task_id FROM ended
""",
    before=(DURABLY,),
)

# name: unlocked  -- reads which incarnations hold running tasks while nobody holds their lock
_UNLOCKED = """
SELECT DISTINCT t.incarnation FROM tasks t
 WHERE t.status = 'running'
   AND NOT EXISTS (
     SELECT FROM pg_locks l
      WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.classid = %(class)s AND l.objid::bigint = t.incarnation AND l.granted)
"""

# name: try lock  -- takes a dead incarnation's lock for this transaction
_TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%(class)s, %(incarnation)s)"

# name: take over  -- running -> pending | cancelled | dead_lettered, for the tasks of a dead incarnation
# Only what had started is charged with the death.
_TAKE_OVER = Planned(
    "take_over",
    f"""
WITH orphans AS (
  SELECT task_id,
         CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
              WHEN started_at IS NOT NULL AND agent_deaths + 1 >= %(max_deaths)s THEN 'dead_lettered'
              ELSE 'pending' END AS status,
         jsonb_build_object('type', 'AgentLost', 'module', 'chiffon', 'message',
           'the agent ' || agent_id || ' died while it held the task') AS error
    FROM tasks WHERE task_id = ANY(%(task_ids)s) AND incarnation = %(incarnation)s AND status = 'running'
), moved AS (
  UPDATE tasks t
     SET status = o.status, incarnation = NULL, claim_token = NULL, history_no = t.history_no + 1,
         agent_deaths = t.agent_deaths + (t.started_at IS NOT NULL)::int,
         give_backs = t.give_backs + (t.started_at IS NULL)::int,
         next_ring_at = CASE WHEN o.status = 'pending' THEN clock_timestamp() END,
         queued_at = CASE WHEN o.status = 'pending' THEN NULL ELSE t.queued_at END,
         finished_at = CASE WHEN o.status = 'pending' THEN NULL ELSE clock_timestamp() END,
         dead_letter_owed = o.status = 'dead_lettered', error = o.error
    FROM orphans o WHERE t.task_id = o.task_id
  RETURNING t.task_id, t.request_id, t.trace_id, t.priority, t.canvas, t.status, t.execution, t.agent_id,
            t.finished_at, t.history_no, t.error
), logged AS (
  UPDATE executions e SET finished_at = clock_timestamp(), outcome = 'agent_lost', error = m.error
    FROM moved m WHERE e.task_id = m.task_id AND e.execution = m.execution AND e.outcome IS NULL
), returned AS (
  INSERT INTO task_history (task_id, number, status, execution, agent_id, detail)
  SELECT task_id, history_no, status, execution, agent_id, error ->> 'message' FROM moved WHERE finished_at IS NULL
), ended AS (
  SELECT task_id, request_id, trace_id, priority, canvas, true AS uncaught, status, execution, agent_id, finished_at,
         history_no, error,
         error ->> 'message' AS detail, {celery_state_sql("status")} AS celery_state,
         {celery_error_sql("error")} AS result, NULL AS traceback, NULL::jsonb AS children
    FROM moved WHERE finished_at IS NOT NULL
) {TAIL}
SELECT task_id, request_id, trace_id, finished_at IS NOT NULL FROM moved
""",
    before=(DURABLY,),
)

# name: debts  -- leases the dead letters owed for longer than their holders need to pay them
_DEBTS = f"""
WITH due AS (
  SELECT task_id FROM tasks
   WHERE dead_letter_owed AND finished_at < {NOW} - make_interval(secs => %(older)s)
     AND (debt_leased_until IS NULL OR debt_leased_until <= clock_timestamp())
   ORDER BY finished_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE tasks t SET debt_leased_until = clock_timestamp() + make_interval(secs => %(lease)s)
  FROM due d WHERE t.task_id = d.task_id
RETURNING {RING_COLUMNS}, t.execution, t.finished_at, t.error ->> 'message'
"""


# name: lost  -- queued -> pending, for what must have been handed out by now and was not; to be rung at once
_LOST = f"""
WITH lost AS (
  SELECT task_id FROM tasks
   WHERE status = 'queued' AND queue = %(queue)s AND (%(priority)s::int IS NULL OR priority = %(priority)s)
     AND queued_at < coalesce(%(rung_before)s::timestamptz, {NOW}) - make_interval(secs => %(older_than)s)
   ORDER BY queued_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), moved AS (
  UPDATE tasks t
     SET status = 'pending', next_ring_at = clock_timestamp(), queued_at = NULL, history_no = t.history_no + 1
    FROM lost l WHERE t.task_id = l.task_id
  RETURNING t.task_id, t.history_no
)
INSERT INTO task_history (task_id, number, status, detail)
SELECT task_id, history_no, 'pending', '{WAS_LOST}' FROM moved
"""

# name: overdue queues  -- reads which queues that a living agent consumes have had a rung task for long
_OVERDUE_QUEUES = f"""
SELECT queue FROM (
  SELECT DISTINCT unnest(queues) AS queue FROM agents
   WHERE stopped_at IS NULL AND last_heartbeat_at > clock_timestamp() - make_interval(secs => %(offline_after)s)
) AS consumed
 WHERE EXISTS (
   SELECT FROM tasks t WHERE t.status = 'queued' AND t.queue = consumed.queue
      AND t.queued_at < {NOW} - make_interval(secs => %(older_than)s))
"""

# name: mute  -- reads which agents hold their lock and give no sign of life: stopped, or hung
_MUTE = """
SELECT a.incarnation, l.pid FROM agents a
  JOIN pg_locks l ON l.locktype = 'advisory' AND l.classid = %(class)s AND l.objid::bigint = a.incarnation
   AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
 WHERE a.stopped_at IS NULL AND a.last_heartbeat_at < clock_timestamp() - make_interval(secs => %(offline_after)s)
"""

# name: silence  -- ends the sessions of those that are mute still
# Materialized, for a process id alone proves nothing: whose lock it holds must be known before it is ended.
_SILENCE = f"""
WITH mute AS MATERIALIZED ({_MUTE} AND a.incarnation = ANY(%(incarnations)s))
SELECT incarnation FROM mute WHERE pg_terminate_backend(pid)
"""


class Freed(NamedTuple):
    """A task that a dead incarnation has let go."""

    task_id: str
    request_id: str
    trace_id: str


def due(cursor: Cursor, *, limit: int) -> int:
    """Move what is due to `pending`; how many it moved."""
    cursor.execute(_DUE, {"limit": limit})
    return int(cursor.rowcount)


def lost(
    cursor: Cursor, *, queue: str, priority: int | None, rung_before: datetime | None, older_than: float, limit: int
) -> int:
    """Move what was rung ``older_than`` seconds before that moment (None: now) and is still queued; how many."""
    cursor.execute(
        _LOST,
        {
            "queue": queue,
            "priority": priority,
            "rung_before": rung_before,
            "older_than": older_than,
            "limit": limit,
        },
    )
    return int(cursor.rowcount)


def overdue_queues(cursor: Cursor, *, older_than: float, offline_after: float) -> list[str]:
    """The consumed queues in which something has been `queued` for more than ``older_than`` seconds."""
    cursor.execute(_OVERDUE_QUEUES, {"older_than": older_than, "offline_after": offline_after})
    return [queue for (queue,) in cursor.fetchall()]


def mute(cursor: Cursor, *, offline_after: float) -> set[int]:
    """The incarnations that hold their lock without a heartbeat for so many seconds."""
    cursor.execute(_MUTE, {"class": LOCK_CLASS, "offline_after": offline_after})
    return {incarnation for incarnation, _ in cursor.fetchall()}


def silence(cursor: Cursor, incarnations: Collection[int], *, offline_after: float) -> list[int]:
    """Cut off those of the incarnations that are mute still; which."""
    values = {"class": LOCK_CLASS, "offline_after": offline_after, "incarnations": list(incarnations)}
    cursor.execute(_SILENCE, values)
    return [incarnation for (incarnation,) in cursor.fetchall()]


def expire(cursor: Cursor, *, limit: int, ttl: float) -> list[str]:
    """End what has expired; the ids of the tasks it ended."""
    cursor.execute(_LATE, {"limit": limit})
    late = unhindered(cursor, [task_id for (task_id,) in cursor.fetchall()])
    if not late:
        return []
    _EXPIRE.execute(cursor, {"task_ids": late, "ttl": ttl})
    task_ids = [task_id for (task_id,) in cursor.fetchall()]
    wake(cursor, task_ids)
    return task_ids


def unlocked(cursor: Cursor) -> set[int]:
    """The incarnations that hold running tasks while nobody holds their lock."""
    cursor.execute(_UNLOCKED, {"class": LOCK_CLASS})
    return {incarnation for (incarnation,) in cursor.fetchall()}


def take_over(cursor: Cursor, incarnation: int, *, ttl: float, max_deaths: int) -> list[Freed]:
    """Free the tasks of a dead incarnation, holding its lock meanwhile; but not those that somebody holds up.

    Returns:
        What it freed; nothing too when the lock turned out to be held after all.
    """
    cursor.execute(_TRY_LOCK, {"class": LOCK_CLASS, "incarnation": incarnation})
    if not cursor.fetchone()[0]:
        return []
    cursor.execute(_ORPHANS, {"incarnation": incarnation})
    orphans = unhindered(cursor, [task_id for (task_id,) in cursor.fetchall()])
    if not orphans:
        return []
    _TAKE_OVER.execute(cursor, {"task_ids": orphans, "incarnation": incarnation, "ttl": ttl, "max_deaths": max_deaths})
    rows = cursor.fetchall()
    wake(cursor, [task_id for task_id, *_, is_end in rows if is_end])
    return [Freed(*ids) for *ids, _ in rows]


def debts(cursor: Cursor, *, limit: int, older: float, lease: float) -> Sequence[tuple[Ring, int, datetime, str]]:
    """Dead letters owed for more than ``older`` seconds: each its execution, the time of its end and its reason.

    They are the caller's for ``lease`` seconds.
    """
    cursor.execute(_DEBTS, {"limit": limit, "older": older, "lease": lease})
    return [(Ring(*ring), execution, died_at, why or "failed") for *ring, execution, died_at, why in cursor.fetchall()]
