"""Accepting: a task exists from this commit on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import psycopg2

from chiffon.domain.tasks import Acceptance, Accepted, Duplicate, IdTaken, KeyReused, NewTask
from chiffon.domain.values import compact
from chiffon.ledger.connect import Cursor
from chiffon.ledger.failures import TAKEN_MEANWHILE, LostRace
from chiffon.ledger.planned import DURABLY, IN_A_HURRY, LOOKING_UP, Planned


def _take_keys(source: str, where: str = "true") -> str:
    """The statement that takes the free keys of `source (request_id, task_id, fingerprint)`, a table or the like.

    Sorted, so that two batches cannot wait for each other. A key that is seen to be held is not tried: trying locks it,
    and its task's end, which holds the task, would wait for the key while `follow` waits for the task.
    """
    return f"""
INSERT INTO request_keys (request_id, task_id, fingerprint)
SELECT request_id, task_id, fingerprint FROM {source}
 WHERE {where} AND NOT EXISTS (
   SELECT FROM request_keys held WHERE held.request_id = asked.request_id
      AND (held.expires_at IS NULL OR held.expires_at > clock_timestamp()))
ORDER BY request_id
ON CONFLICT (request_id) DO UPDATE
   SET task_id = excluded.task_id, fingerprint = excluded.fingerprint, expires_at = NULL
 WHERE request_keys.expires_at <= clock_timestamp()
RETURNING request_id
"""


# name: take keys  -- (free | expired) -> held by these tasks; no row back means that another task holds it
_TAKE_KEYS = _take_keys(
    "unnest(%(request_ids)s::text[], %(task_ids)s::text[], %(fingerprints)s::text[])"
    " AS asked (request_id, task_id, fingerprint)"
)

# name: holders  -- reads who holds the keys that could not be taken
_HOLDERS = "SELECT request_id, task_id, fingerprint FROM request_keys WHERE request_id = ANY(%(request_ids)s)"

# name: known ids  -- reads which of the ids exist, and what they were asked for
_KNOWN_IDS = "SELECT task_id, fingerprint FROM tasks WHERE task_id = ANY(%(task_ids)s)"

# The clock is read once: between two looks at it a task's time could come.
_ASKED = """
WITH moment AS MATERIALIZED (
  SELECT clock_timestamp() AS now
), asked AS (
  SELECT * FROM jsonb_to_recordset(%(rows)s::jsonb) AS r (
    task_id text, request_id text, trace_id text, work_type text, priority int, queue text, parameters jsonb,
    arguments jsonb, canvas jsonb, labels jsonb, fingerprint text, origin text, timeout float8, soft_timeout float8,
    max_retries int, delay float8, run_at timestamptz, expires_in float8, expires_at timestamptz, keyed bool)
)"""


def _born(source: str) -> str:
    """CTEs that write down the tasks of another one, and say `born (task_id, status, created_at)`."""
    return f"""
, timed AS (
  SELECT {source}.*, now, coalesce(run_at, now + make_interval(secs => delay)) AS due FROM {source}, moment
), born AS (
  INSERT INTO tasks (task_id, request_id, trace_id, work_type, status, priority, queue, parameters, arguments, canvas,
                     labels, fingerprint, origin, timeout, soft_timeout, max_retries, run_at, expires_at, ring_no,
                     next_ring_at)
  SELECT task_id, request_id, trace_id, work_type,
         CASE WHEN due > now THEN 'scheduled' ELSE 'pending' END,
         priority, queue, parameters, arguments, canvas, labels, fingerprint, origin, timeout, soft_timeout,
         max_retries, CASE WHEN due > now THEN due END,
         coalesce(expires_at, now + make_interval(secs => expires_in)), 1,
         CASE WHEN due > now THEN NULL ELSE now + make_interval(secs => %(lease)s) END
  FROM timed ORDER BY task_id
  ON CONFLICT (task_id) DO NOTHING
  RETURNING task_id, status, created_at
), told AS (
  INSERT INTO task_history (task_id, number, at, status, detail)
  SELECT task_id, 1, created_at, status, 'accepted' FROM born
)
"""


# name: bear  -- (new) -> pending | scheduled; the first ring is leased in the same commit
BEAR = Planned("bear", f"{_ASKED}{_born('asked')} SELECT task_id, status FROM born", before=(DURABLY,))

# name: bear if free  -- takes the keys and bears, in one statement; a task without a row back was not free
# A key without its task would be held for ever: if an id was taken in between, the statement undoes itself.
_BEAR_IF_FREE = Planned(
    "bear_if_free",
    f"""{_ASKED}
, unknown AS (
  SELECT * FROM asked WHERE NOT EXISTS (SELECT FROM tasks t WHERE t.task_id = asked.task_id)
), taken AS ({_take_keys("unknown AS asked", where="keyed")}), free AS (
  SELECT * FROM unknown WHERE NOT keyed OR request_id IN (SELECT request_id FROM taken)
){_born("free")}
SELECT task_id, status FROM born
 UNION ALL
SELECT NULL, ('{TAKEN_MEANWHILE}' || count(*))::int::text FROM free HAVING count(*) > (SELECT count(*) FROM born)
""",
    before=(LOOKING_UP, DURABLY),
)

_BEAR_TOGETHER = replace(_BEAR_IF_FREE, before=(*_BEAR_IF_FREE.before, IN_A_HURRY))


def accept_free(cursor: Cursor, tasks: Sequence[NewTask], *, lease: float) -> dict[str, str]:
    """Write down those of the tasks, all of them fresh, whose ``request_id`` nobody has.

    Args:
        cursor: of a session of the ledger's own: the planner is told things until the transaction ends.
        tasks: no two with the same ``request_id``.
        lease: as for `accept`.

    Returns:
        By the id of each that was written down its state, `pending` or `scheduled`.

    Raises:
        LostRace: nothing was done.
    """
    if not tasks:
        return {}
    _BEAR_IF_FREE.execute(cursor, born_from(tasks, lease=lease))
    return dict(cursor.fetchall())


def accept_together(cursor: Cursor, tasks: Sequence[NewTask], *, lease: float) -> dict[str, str]:
    """As `accept_free`, for tasks of several callers: for a ``request_id`` that somebody holds it hardly waits."""
    _BEAR_TOGETHER.execute(cursor, born_from(tasks, lease=lease))
    return dict(cursor.fetchall())


def accept(cursor: Cursor, tasks: Sequence[NewTask], *, lease: float) -> tuple[list[Acceptance], set[str]]:
    """Write down the tasks whose ``request_id`` and ``task_id`` are free.

    Args:
        cursor: inside a transaction; it must be rolled back if this raises.
        tasks: no two with the same ``request_id`` or ``task_id``.
        lease: seconds until the sweeper rings for what its acceptor did not.

    Returns:
        What became of each task, in the order given, and the ids of those that may be rung now (`pending`, not
        `scheduled`), as ring number 1.

    Raises:
        LostRace: repeat in a new transaction.
    """
    fates: dict[str, Acceptance] = _already_known(cursor, tasks)
    fresh = [task for task in tasks if task.task_id not in fates]
    fates |= _keys_held_by_others(cursor, [task for task in fresh if task.keyed])
    wanted = [task for task in fresh if task.task_id not in fates]
    pending: set[str] = set()
    if wanted:
        BEAR.execute(cursor, born_from(wanted, lease=lease))
        born = dict(cursor.fetchall())
        if len(born) < len(wanted):
            raise LostRace("one of the ids was taken in between")
        pending = {task_id for task_id, status in born.items() if status == "pending"}
    return [fates.get(task.task_id, Accepted(task.task_id)) for task in tasks], pending


def accept_many(cursor: Cursor, tasks: Sequence[NewTask], *, lease: float) -> tuple[list[Acceptance], set[str]]:
    """As `accept`, on a session of the ledger's own: those of whom nobody has heard go in one statement."""
    born = accept_free(cursor, [task for task in tasks if task.fresh], lease=lease)
    others = [task for task in tasks if task.task_id not in born]
    found, pending = accept(cursor, others, lease=lease) if others else ([], set())
    fates = dict(zip((task.task_id for task in others), found, strict=True))
    return [fates.get(task.task_id, Accepted(task.task_id)) for task in tasks], pending | {
        task_id for task_id, status in born.items() if status == "pending"
    }


def accept_inside(cursor: Cursor, tasks: Sequence[NewTask], *, lease: float) -> tuple[list[Acceptance], set[str]]:
    """As `accept`, in a transaction that has done other things too: whatever it raises, only this is undone."""
    cursor.execute("SAVEPOINT chiffon_accept")
    try:
        found = accept(cursor, tasks, lease=lease)
    except BaseException:  # else its caller might commit a key that no task has
        with suppress(psycopg2.Error):  # it is what went wrong first that counts
            cursor.execute("ROLLBACK TO SAVEPOINT chiffon_accept")
        raise
    cursor.execute("RELEASE SAVEPOINT chiffon_accept")
    return found


def _already_known(cursor: Cursor, tasks: Sequence[NewTask]) -> dict[str, Acceptance]:
    cursor.execute(_KNOWN_IDS, {"task_ids": [task.task_id for task in tasks]})
    known = dict(cursor.fetchall())
    return {
        task.task_id: Duplicate(task.task_id) if known[task.task_id] == task.fingerprint else IdTaken(task.task_id)
        for task in tasks
        if task.task_id in known
    }


def _keys_held_by_others(cursor: Cursor, tasks: Sequence[NewTask]) -> dict[str, Acceptance]:
    if not tasks:
        return {}
    by_key = {task.request_id: task for task in tasks}
    cursor.execute(
        _TAKE_KEYS,
        {
            "request_ids": list(by_key),
            "task_ids": [task.task_id for task in by_key.values()],
            "fingerprints": [task.fingerprint for task in by_key.values()],
        },
    )
    missed = by_key.keys() - {request_id for (request_id,) in cursor.fetchall()}
    if not missed:
        return {}
    cursor.execute(_HOLDERS, {"request_ids": list(missed)})
    return {
        by_key[request_id].task_id: Duplicate(holder) if same == by_key[request_id].fingerprint else KeyReused(holder)
        for request_id, holder, same in cursor.fetchall()
    }


def born_from(tasks: Sequence[NewTask], *, lease: float) -> dict[str, Any]:
    """The values with which `BEAR` writes down these tasks."""
    return {"rows": compact([_row(task) for task in tasks]), "lease": lease}


def _row(task: NewTask) -> dict[str, Any]:
    row = {name: value for name, value in vars(task).items() if value is not None}  # what is not there is NULL
    for name in ("run_at", "expires_at"):
        if name in row:
            row[name] = row[name].isoformat()
    return row
