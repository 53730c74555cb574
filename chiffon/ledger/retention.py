"""Old tasks are forgotten, with all that is known of them, in batches that hold nobody up."""

from __future__ import annotations

from chiffon.ledger.connect import Cursor
from chiffon.ledger.effects import releasing, to_be_seen_to
from chiffon.ledger.expiry import Batch
from chiffon.ledger.sweeps import LOCK_CLASS

# name: forget tasks  -- deletes ended tasks of which nothing is waited for any more: no dead letter is owed, no
# idempotency key is held, no chord or follower needs them, and what their end sets off has been seen to; a chord's
# body, which reads its parts, begins only after the release. In the order in which they were made, for that has an
# index; and so has each thing that is looked up for one.
# now() and not clock_timestamp(): a volatile function would read the whole table.
_FORGET_TASKS = f"""
WITH old AS MATERIALIZED (
  SELECT t.task_id, t.request_id, t.created_at FROM tasks t
   WHERE t.created_at >= %(after)s::timestamptz AND t.created_at < now() - make_interval(secs => %(age)s)
     AND t.finished_at < now() - make_interval(secs => %(age)s)
     AND NOT t.dead_letter_owed
     AND NOT EXISTS (SELECT FROM request_keys k WHERE k.request_id = t.request_id AND k.task_id = t.task_id
                        AND (k.expires_at IS NULL OR k.expires_at > now()))
     AND NOT ({to_be_seen_to("t")})
     AND NOT EXISTS (SELECT FROM tasks f WHERE f.follows = t.task_id AND f.finished_at IS NULL)
     AND NOT EXISTS (SELECT FROM chords c WHERE c.group_id = t.canvas ->> 'group'
                        AND (c.released_at IS NULL OR c.released_at >= now() - make_interval(secs => %(age)s)
                             OR {releasing("c.group_id")}))
   ORDER BY t.created_at LIMIT %(limit)s FOR UPDATE OF t SKIP LOCKED
), keys AS (
  DELETE FROM request_keys k USING old WHERE k.request_id = old.request_id AND k.task_id = old.task_id
), kept AS (
  DELETE FROM results r USING old WHERE r.task_id = old.task_id
), told AS (
  DELETE FROM task_history h USING old WHERE h.task_id = old.task_id
), run AS (
  DELETE FROM executions e USING old WHERE e.task_id = old.task_id
), gone AS (
  DELETE FROM tasks t USING old WHERE t.task_id = old.task_id RETURNING t.created_at
)
SELECT count(*), max(created_at)::text FROM gone
"""

# name: forget agents  -- deletes the lives that ended long ago, whether or not they said so: nobody holds their lock
_FORGET_AGENTS = """
DELETE FROM agents a
 WHERE coalesce(a.stopped_at, a.last_heartbeat_at) < clock_timestamp() - make_interval(secs => %(age)s)
   AND NOT EXISTS (
     SELECT FROM pg_locks l
      WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.classid = %(class)s AND l.objid::bigint = a.incarnation AND l.granted)
"""


def forget_tasks(cursor: Cursor, *, age: float, limit: int, after: str) -> Batch:
    """Delete up to ``limit`` tasks that ended more than ``age`` seconds ago; ``after``: see `Batch`."""
    cursor.execute(_FORGET_TASKS, {"age": age, "limit": limit, "after": after})
    deleted, newest = cursor.fetchone()
    return Batch(deleted, newest or after)


def forget_agents(cursor: Cursor, *, age: float) -> int:
    """Delete the incarnations that ended more than ``age`` seconds ago; how many."""
    cursor.execute(_FORGET_AGENTS, {"age": age, "class": LOCK_CLASS})
    return int(cursor.rowcount)
