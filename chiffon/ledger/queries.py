"""Reading: what is where, and why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from chiffon.domain.states import ENDS
from chiffon.domain.values import canonical
from chiffon.domain.views import (
    AgentView,
    ExecutionView,
    HistoryEntry,
    LedgerFigures,
    QueueFigures,
    RecentEnds,
    TaskFilter,
    TaskSteps,
    TaskView,
)
from chiffon.ledger.connect import Cursor
from chiffon.ledger.sweeps import WAS_LOST

_TASK_COLUMNS = """t.task_id, t.request_id, t.trace_id, t.work_type, t.status, t.priority, t.queue, t.parameters,
  %(result)s, t.error, t.attempts, t.agent_id, t.progress, t.labels, t.created_at, t.run_at, t.expires_at,
  t.queued_at, t.started_at, t.finished_at, t.cancel_requested_at"""

# name: task  -- reads one task with its result
_TASK = f"""
SELECT {_TASK_COLUMNS % {"result": "CASE WHEN t.status = 'completed' THEN r.result END"}}
  FROM tasks t LEFT JOIN results r USING (task_id) WHERE task_id = %(task_id)s
"""

# name: several  -- reads some tasks with their results
_SEVERAL = f"""
SELECT {_TASK_COLUMNS % {"result": "CASE WHEN t.status = 'completed' THEN r.result END"}}
  FROM tasks t LEFT JOIN results r USING (task_id) WHERE t.task_id = ANY(%(task_ids)s)
"""

# name: executions  -- reads the real runs of one task
_EXECUTIONS = """
SELECT execution, agent_id, incarnation, claimed_at, started_at, finished_at, outcome, error
  FROM executions WHERE task_id = %(task_id)s ORDER BY execution
"""

# name: steps  -- reads where one task stands, and its steps after a number; one statement, so that they agree
_STEPS = """
SELECT t.status, t.progress, h.number, h.at, h.status, h.execution, h.agent_id, h.detail
  FROM tasks t
  LEFT JOIN LATERAL (
    SELECT * FROM task_history s WHERE s.task_id = t.task_id AND s.number > %(after)s ORDER BY s.number LIMIT %(limit)s
  ) h ON true
 WHERE t.task_id = %(task_id)s ORDER BY h.number
"""

# name: agents  -- reads the newest life of each agent
_AGENTS = """
SELECT a.agent_id, a.incarnation, a.hostname, a.pid, a.slots, a.queues, a.work_types,
       CASE WHEN a.stopped_at IS NOT NULL
              OR a.last_heartbeat_at < clock_timestamp() - make_interval(secs => %(offline_after)s) THEN 'offline'
            WHEN a.draining_at IS NOT NULL THEN 'draining'
            WHEN cardinality(held.task_ids) >= a.slots THEN 'busy'
            ELSE 'online' END,
       a.started_at, a.last_heartbeat_at, held.task_ids
  FROM (
    SELECT DISTINCT ON (agent_id) * FROM agents
     WHERE %(agent_id)s::text IS NULL OR agent_id = %(agent_id)s
     ORDER BY agent_id, incarnation DESC) a, LATERAL (
    SELECT coalesce(array_agg(t.task_id ORDER BY t.claimed_at), '{}') AS task_ids
      FROM tasks t WHERE t.incarnation = a.incarnation AND t.status = 'running') held
 ORDER BY a.agent_id
"""

# name: online for  -- reads how many living agents know each work type
_ONLINE_FOR = """
SELECT w, count(DISTINCT a.agent_id) FROM agents a, unnest(a.work_types) AS w
 WHERE a.stopped_at IS NULL AND a.last_heartbeat_at > clock_timestamp() - make_interval(secs => %(offline_after)s)
 GROUP BY w
"""


def _waits_since(untouched: int) -> str:
    """Since when a task waits for an agent; NULL for one that waits for another task.

    ``untouched``: the number of its newest step if it has waited from its acceptance on; of any other the history is
    read. A message that was lost begins no new wait.
    """
    return f"""CASE
      WHEN t.follows IS NOT NULL THEN NULL WHEN t.history_no = {untouched} THEN t.created_at
      ELSE coalesce((SELECT h.at FROM task_history h
                      WHERE h.task_id = t.task_id AND h.status = 'pending' AND h.detail IS DISTINCT FROM '{WAS_LOST}'
                      ORDER BY h.number DESC LIMIT 1), t.created_at) END"""


# name: queues  -- reads what waits and runs in each queue
# Each state by itself, for each has an index as small as the tasks in it; of two together none is used.
_QUEUES = f"""
SELECT queue, sum(waiting)::int, sum(running)::int, extract(epoch FROM clock_timestamp() - min(oldest))::float8
  FROM (SELECT queue, count(*) AS waiting, 0 AS running, min({_waits_since(1)}) AS oldest
          FROM tasks t WHERE status = 'pending' GROUP BY queue
         UNION ALL
        SELECT queue, count(*), 0, min({_waits_since(2)}) FROM tasks t WHERE status = 'queued' GROUP BY queue
         UNION ALL
        SELECT queue, 0, count(*), NULL FROM tasks WHERE status = 'running' GROUP BY queue) AS found
 GROUP BY queue ORDER BY queue
"""

# name: delayed  -- reads how many wait for their time
_DELAYED = "SELECT status, count(*) FROM tasks WHERE status IN ('scheduled', 'retrying') GROUP BY status"

# name: owed  -- reads how many dead letters are owed
_OWED = "SELECT count(*) FROM tasks WHERE dead_letter_owed"

# name: recent  -- reads what has ended in the last minute, and how long that had run
# By the index of the results, which are written with every end. A run that ends its task is ended after it, by the same
# statement; what ended while it waited for a retry has ended later than its last run.
_RECENT = """
SELECT CASE WHEN t.work_type = ANY(%(known)s::text[]) THEN t.work_type ELSE %(other)s END, t.status, count(*),
       percentile_disc(%(quantiles)s::float8[])
         WITHIN GROUP (ORDER BY extract(epoch FROM e.finished_at - e.started_at)::float8)
         FILTER (WHERE e.started_at IS NOT NULL)
  FROM results r JOIN tasks t USING (task_id)
  LEFT JOIN executions e ON e.task_id = t.task_id AND e.execution = t.execution AND e.finished_at >= t.finished_at
 WHERE r.date_done > now() - interval '1 minute' AND t.finished_at IS NOT NULL
 GROUP BY 1, 2 ORDER BY 1, 2
"""

OTHER = "other"
"""What all work types are called that nobody knows."""

_AT_ONCE = 64
"""Tasks of a list that are read together: each may have as many parameters as a request may."""

_QUANTILES = (0.5, 0.9, 0.99)


def task(cursor: Cursor, task_id: str) -> TaskView | None:
    """The task with its result and executions, or None if the ledger has none of that id."""
    cursor.execute(_TASK, {"task_id": task_id})
    row = cursor.fetchone()
    if row is None:
        return None
    cursor.execute(_EXECUTIONS, {"task_id": task_id})
    columns: list[Any] = [*row, tuple(ExecutionView(*e) for e in cursor.fetchall())]
    return TaskView(*columns)


def several(cursor: Cursor, task_ids: Sequence[str]) -> dict[str, TaskView]:
    """Those of the tasks that there are, by id, with their results and without their executions."""
    cursor.execute(_SEVERAL, {"task_ids": list(task_ids)})
    return {row[0]: TaskView(*row) for row in cursor.fetchall()}


def tasks(cursor: Cursor, wanted: TaskFilter, *, limit: int, max_bytes: int) -> tuple[list[TaskView], bool]:
    """Up to ``limit`` tasks, newest first, that fit the filter, and whether there are more.

    The last of them may go beyond ``max_bytes`` of parameters. A transaction has one such list.
    """
    conditions, values = _conditions(wanted)
    cursor.execute(
        # What is sorted is not looked into: that would read the parameters of all that fit.
        "DECLARE listed NO SCROLL CURSOR FOR SELECT octet_length(parameters::text), listed.* FROM"
        f" (SELECT {_TASK_COLUMNS % {'result': 'NULL::jsonb'}} FROM tasks t WHERE {' AND '.join(conditions) or 'true'}"
        " ORDER BY t.created_at DESC, t.task_id DESC LIMIT %(limit)s) AS listed",
        {**values, "limit": limit + 1},
    )
    found: list[TaskView] = []
    size = 0
    while True:
        cursor.execute(f"FETCH {_AT_ONCE} FROM listed")
        rows = cursor.fetchall()
        for length, *row in rows:
            if len(found) == limit or size > max_bytes:
                return found, True
            found.append(TaskView(*row))
            size += length
        if len(rows) < _AT_ONCE:
            return found, False


def _conditions(wanted: TaskFilter) -> tuple[list[str], dict[str, Any]]:
    plain = ("status", "work_type", "trace_id", "request_id", "agent_id")
    values: dict[str, Any] = {name: value for name in plain if (value := getattr(wanted, name)) is not None}
    conditions = [f"t.{name} = %({name})s" for name in values]
    if wanted.label is not None:
        conditions.append("t.labels @> %(label)s::jsonb AND t.labels <> '{}'")  # as its index says
        values["label"] = canonical(dict([wanted.label]))
    for name, comparison in (("since", ">="), ("until", "<")):
        if (moment := getattr(wanted, name)) is not None:
            conditions.append(f"t.created_at {comparison} %({name})s")
            values[name] = moment
    if wanted.after is not None:
        conditions.append("(t.created_at, t.task_id) < (%(after_at)s, %(after_id)s)")
        values["after_at"], values["after_id"] = wanted.after
    return conditions, values


def steps(cursor: Cursor, task_id: str, *, after: int, limit: int) -> TaskSteps | None:
    """Up to ``limit`` steps of a task numbered higher than ``after``, in order; None if there is no such task."""
    cursor.execute(_STEPS, {"task_id": task_id, "after": after, "limit": limit})
    rows = cursor.fetchall()
    if not rows:
        return None
    status, progress = rows[0][:2]
    found = [HistoryEntry(*row[2:]) for row in rows if row[2] is not None]
    return TaskSteps(found, progress, is_over=status in ENDS and len(found) < limit)


def agents(cursor: Cursor, *, offline_after: float, agent_id: str | None = None) -> list[AgentView]:
    """The newest life of every agent, or of one; offline is who gave no sign of life for ``offline_after`` seconds."""
    cursor.execute(_AGENTS, {"offline_after": offline_after, "agent_id": agent_id})
    return [_agent(*row) for row in cursor.fetchall()]


def _agent(*row: Any) -> AgentView:
    columns: list[Any] = [tuple(column) if isinstance(column, list) else column for column in row]
    return AgentView(*columns)


def online_for(cursor: Cursor, *, offline_after: float) -> dict[str, int]:
    """By work type, how many living agents know it."""
    cursor.execute(_ONLINE_FOR, {"offline_after": offline_after})
    return dict(cursor.fetchall())


def queues(cursor: Cursor) -> list[QueueFigures]:
    """What waits and runs in each queue that has any work."""
    cursor.execute(_QUEUES)
    return [QueueFigures(*row) for row in cursor.fetchall()]


def figures(cursor: Cursor, known: Collection[str]) -> LedgerFigures:
    """What is to be told beside the queues: what waits for its time, what is owed, what has just ended.

    ``known``: the work types that are told apart. A message may name any other, and each a new one: they are one.
    """
    cursor.execute(_DELAYED)
    delayed = {"scheduled": 0, "retrying": 0} | dict(cursor.fetchall())
    cursor.execute(_OWED)
    ((owed,),) = cursor.fetchall()
    cursor.execute(_RECENT, {"quantiles": list(_QUANTILES), "known": list(known), "other": OTHER})
    return LedgerFigures(delayed, owed, [_recent(*row) for row in cursor.fetchall()])


def _recent(work_type: str, status: str, many: int, seconds: list[float | None] | None) -> RecentEnds:
    took = zip(_QUANTILES, seconds or (), strict=False)
    return RecentEnds(work_type, status, many, {q: value for q, value in took if value is not None})
