"""What every end does in its own commit, whoever ends the task: one tail for all the statements that end one."""

from __future__ import annotations

from chiffon.domain.ids import MAX_REQUEST_ID
from chiffon.domain.work import DEFAULT_QUEUE
from chiffon.ledger.connect import Cursor
from chiffon.ledger.planned import ONE_BY_ONE, Planned

AFTER_END = "chiffon.after_end"
"""The work type that sees to what an end sets off, where the end was not a run's own."""

RELEASE_CHORD = "chiffon.release_chord"
"""The work type that goes on with a chord's body once its header is complete."""

CHANNEL = "chiffon_ended"
"""The NOTIFY channel; its payload is a task id."""


def named_after(task_id: str, history_no: str) -> str:
    """The id, made of an end, of the task that sees to what it sets off."""
    return f"md5('after ' || {task_id} || ' ' || {history_no})::uuid::text"


def to_be_seen_to(task: str) -> str:
    """Whether an ended task's errbacks, chain and chord are still to be seen to. ``task``: its row's name."""
    after = named_after(f"{task}.task_id", f"{task}.history_no")
    unfinished = f"SELECT FROM tasks a WHERE a.task_id = {after} AND a.finished_at IS NULL"
    return f"{task}.canvas ? 'embed' AND EXISTS ({unfinished} {ONE_BY_ONE})"


def release_request_id(group_id: str) -> str:
    """The ``request_id`` of the task that goes on with a chord: by this Postgres, too, can find it."""
    return f"chord {group_id}"[:MAX_REQUEST_ID]


def releasing(group_id: str) -> str:
    """Whether a chord's body, for which its parts are read, is still to be gone on with."""
    return (
        f"EXISTS (SELECT FROM tasks r WHERE r.request_id = left('chord ' || {group_id}, {MAX_REQUEST_ID})"
        f" AND r.work_type = '{RELEASE_CHORD}' AND r.finished_at IS NULL {ONE_BY_ONE})"
    )


def after_end(ends: str) -> str:
    """CTEs that leave what some ends set off to a task of its own each: what follows is part of the end (guarantee 8).

    ``ends``: a SELECT of their task_id, trace_id, priority, canvas and history_no.
    """
    return f"""
, after AS (
  INSERT INTO tasks (task_id, request_id, trace_id, work_type, status, priority, queue, parameters, arguments, canvas,
                     labels, fingerprint, origin, next_ring_at)
  SELECT id, id, trace_id, '{AFTER_END}', 'pending', priority, '{DEFAULT_QUEUE}',
         jsonb_build_object('task_id', task_id), '[]', jsonb_build_object('parent_id', task_id), '{{}}', id, 'canvas',
         clock_timestamp()
    FROM ({ends}) AS e (task_id, trace_id, priority, canvas, history_no),
         LATERAL (SELECT {named_after("e.task_id", "e.history_no")} AS id) AS named
   WHERE canvas ? 'embed'
  ON CONFLICT (task_id) DO NOTHING
  RETURNING task_id
), after_told AS (
  INSERT INTO task_history (task_id, number, status, detail) SELECT task_id, 1, 'pending', 'accepted' FROM after
)"""


# A CTE `ended (task_id, request_id, trace_id, priority, canvas, status, execution, agent_id, finished_at, history_no,
# error, detail, result, celery_state, traceback, children, uncaught)` goes before it; `uncaught`: what the end
# sets off is not written down by whoever ends the task. Each step:
# followed  pending, following -> the same end: of two messages with one request_id one is run
# kept      the result, for whoever asks Celery's way
# freed     the idempotency key runs out some time after the end
# told      the history says so
# after     an end that nobody caught has its errbacks, chain and chord seen to by a task of its own
TAIL = """
, followed AS (
  UPDATE tasks f
     SET status = e.status, finished_at = e.finished_at, error = e.error, history_no = f.history_no + 1,
         next_ring_at = NULL, queued_at = NULL, dead_letter_owed = false
    FROM ended e
   WHERE f.follows = e.task_id AND f.status = 'pending'
  RETURNING f.task_id, f.trace_id, f.priority, f.canvas, f.status, f.finished_at, f.history_no, e.result,
            e.celery_state, e.traceback, e.task_id AS first
), kept AS (
  INSERT INTO results (task_id, status, result, traceback, children, date_done)
  SELECT task_id, celery_state, result, traceback, children, finished_at FROM ended
  UNION ALL
  SELECT task_id, celery_state, result, traceback, NULL, finished_at FROM followed
  ON CONFLICT (task_id) DO UPDATE
     SET status = excluded.status, result = excluded.result, traceback = excluded.traceback,
         children = excluded.children, meta = NULL, date_done = excluded.date_done
  RETURNING task_id
), freed AS (
  UPDATE request_keys k SET expires_at = clock_timestamp() + make_interval(secs => %(ttl)s)
    FROM ended e WHERE k.request_id = e.request_id AND k.task_id = e.task_id
), told AS (
  INSERT INTO task_history (task_id, number, status, execution, agent_id, detail)
  SELECT task_id, history_no, status, execution, agent_id, detail FROM ended
  UNION ALL
  SELECT task_id, history_no, status, NULL, NULL, 'takes the end of ' || first FROM followed
)""" + after_end(
    "SELECT task_id, trace_id, priority, canvas, history_no FROM ended WHERE uncaught "
    "UNION ALL SELECT task_id, trace_id, priority, canvas, history_no FROM followed"
)

# Beside `TAIL`: wakes who waits for any of these tasks, at the commit.
WOKEN = f"(SELECT count(pg_notify('{CHANNEL}', task_id)) FROM kept)"

# name: wake  -- tells who waits for these tasks, and for those that took their end; at the commit
_WAKE = f"""
SELECT pg_notify('{CHANNEL}', task_id) FROM (
  SELECT unnest(%(task_ids)s::text[]) UNION SELECT task_id FROM tasks WHERE follows = ANY(%(task_ids)s)
) AS ended (task_id)
"""


def wake(cursor: Cursor, task_ids: list[str]) -> None:
    """Notify whoever waits for one of these tasks, when the transaction commits."""
    if task_ids:
        cursor.execute(_WAKE, {"task_ids": task_ids})


# name: hold  -- locks tasks that are about to end, or to be followed, in a statement of its own
# A statement sees what was committed before it began. One that locks and ends at once would miss the follower that was
# written down while it waited for the lock.
HELD = Planned("hold", "SELECT FROM tasks WHERE task_id = ANY(%(task_ids)s::text[]) ORDER BY task_id FOR UPDATE")


def hold(cursor: Cursor, task_ids: list[str]) -> None:
    """Lock the tasks until the transaction ends; whatever is read after this is as new as the lock."""
    HELD.execute(cursor, {"task_ids": task_ids})


# name: unhindered  -- locks the followers and the keys of tasks that are locked, as far as nobody else holds them;
# reads which of the tasks can end without waiting for anybody
_UNHINDERED = """
WITH followers AS (
  SELECT task_id FROM tasks WHERE follows = ANY(%(task_ids)s) AND status = 'pending' FOR UPDATE SKIP LOCKED
), keys AS (
  SELECT k.request_id FROM request_keys k JOIN tasks t ON t.request_id = k.request_id AND t.task_id = k.task_id
   WHERE t.task_id = ANY(%(task_ids)s) FOR UPDATE OF k SKIP LOCKED
)
SELECT t.task_id FROM tasks t
 WHERE t.task_id = ANY(%(task_ids)s)
   AND NOT EXISTS (
     SELECT FROM tasks f WHERE f.follows = t.task_id AND f.status = 'pending'
        AND f.task_id NOT IN (SELECT task_id FROM followers))
   AND NOT EXISTS (
     SELECT FROM request_keys k WHERE k.request_id = t.request_id AND k.task_id = t.task_id
        AND k.request_id NOT IN (SELECT request_id FROM keys))
"""


def unhindered(cursor: Cursor, task_ids: list[str]) -> list[str]:
    """Those of the tasks, which the caller has locked, whose end touches nothing that somebody else holds."""
    if not task_ids:
        return []
    cursor.execute(_UNHINDERED, {"task_ids": task_ids})
    return [task_id for (task_id,) in cursor.fetchall()]
