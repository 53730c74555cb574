"""Results for whoever asks Celery's way, and the set of finished parts of each chord."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from chiffon.domain.states import CELERY_STATES, ENDS
from chiffon.ledger.connect import Cursor
from chiffon.ledger.effects import CHANNEL
from chiffon.ledger.planned import LOOKING_UP, Planned
from chiffon.ledger.settle import celery_error_sql, celery_state_sql

FINAL = frozenset(CELERY_STATES[state] for state in ENDS)
"""Celery's words for a state that is an end: SUCCESS, FAILURE, REVOKED."""

ADDED = "ADDED"
"""The status of a part that says: one more is to be waited for."""

_FINAL = ", ".join(f"'{word}'" for word in sorted(FINAL))
_ENDS = ", ".join(f"'{state}'" for state in sorted(ENDS))


@dataclass(frozen=True)
class StoredResult:
    """A task's state and result in Celery's words. ``result``, ``children`` and ``meta`` are JSON text.

    ``meta``: what else Celery keeps. A task of the ledger's own needs none to be stored, and is fetched with it.
    ``date_done`` is set by the ledger, and None as long as the state is no end.
    """

    task_id: str
    status: str
    result: str | None = None
    traceback: str | None = None
    children: str | None = None
    meta: str | None = None
    date_done: datetime | None = None


@dataclass(frozen=True)
class Part:
    """One task of a chord's header that has ended, in Celery's word ``status``.

    ``size``: how many parts the header has, where only the message knows it.
    """

    group_id: str
    task_id: str
    status: str
    size: int | None = None


# name: store  -- (none) | a state -> a state; a success stays, and an end is only followed by an end
# A copy of the task that comes late must not put its STARTED, or its failure, over the result that is there.
_STORE = f"""
WITH kept AS (
  INSERT INTO results AS r (task_id, status, result, traceback, children, meta)
  VALUES (%(task_id)s, %(status)s, %(result)s::jsonb, %(traceback)s, %(children)s::jsonb, %(meta)s::jsonb)
  ON CONFLICT (task_id) DO UPDATE
     SET status = excluded.status, result = excluded.result, traceback = excluded.traceback,
         children = excluded.children, meta = excluded.meta, date_done = clock_timestamp()
   WHERE r.status <> 'SUCCESS' AND (r.status NOT IN ({_FINAL}) OR excluded.status IN ({_FINAL}))
  RETURNING task_id, status
)
SELECT CASE WHEN status IN ({_FINAL}) THEN pg_notify('{CHANNEL}', task_id) END FROM kept
"""

# What Celery keeps beside a result (`result_extended`), of a task of the ledger's own: its row says it all.
_EXTENDED = """
  jsonb_build_object('name', own.work_type, 'args', own.arguments, 'kwargs', own.parameters, 'worker', own.agent_id,
                     'retries', own.retries, 'queue', own.queue)
  || jsonb_strip_nulls(jsonb_build_object(
       'group_id', own.canvas -> 'group', 'parent_id', own.canvas -> 'parent_id',
       'group_index', own.canvas #> '{headers,group_index}',
       'stamped_headers', own.canvas #> '{headers,stamped_headers}'))
  || coalesce((SELECT jsonb_object_agg(key, value) FROM jsonb_each(own.canvas #> '{headers,stamps}')
                WHERE own.canvas #> '{headers,stamped_headers}' ? key), '{}')
"""

# name: fetch  -- reads states and results; a task of the ledger's own that goes on speaks for itself
# An ended one without a row has had its result forgotten: to Celery that is PENDING, as an unknown id is.
_FETCH = Planned(
    "fetch",
    f"""
SELECT w.task_id,
       CASE WHEN t.task_id IS NULL THEN r.status ELSE {celery_state_sql("t.status")} END,
       CASE WHEN t.task_id IS NULL THEN r.result
            WHEN t.status = 'retrying' AND t.error IS NOT NULL THEN {celery_error_sql("t.error")}
            WHEN t.status = 'running' THEN t.progress END ::text,
       CASE WHEN t.task_id IS NULL THEN r.traceback WHEN t.status = 'retrying' THEN t.error ->> 'traceback' END,
       r.children::text, CASE WHEN own.task_id IS NULL THEN r.meta ELSE {_EXTENDED} END ::text,
       CASE WHEN r.status IN ({_FINAL}) THEN r.date_done END
  FROM unnest(%(task_ids)s::text[]) AS w (task_id)
  LEFT JOIN results r ON r.task_id = w.task_id
  LEFT JOIN tasks t ON t.task_id = w.task_id AND t.status NOT IN ({_ENDS})
        AND (r.task_id IS NULL OR r.status NOT IN ({_FINAL}) AND t.status <> 'running')
  LEFT JOIN tasks own ON own.task_id = r.task_id AND r.meta IS NULL
 WHERE r.task_id IS NOT NULL OR t.task_id IS NOT NULL
""",
    before=(LOOKING_UP,),
)

# name: forget  -- the result is gone, the task is not
_FORGET = "DELETE FROM results WHERE task_id = %(task_id)s"

# name: size chord  -- says how many parts a chord waits for
_SIZE_CHORD = """
INSERT INTO chords (group_id, size) VALUES (%(group_id)s, %(size)s)
ON CONFLICT (group_id) DO UPDATE SET size = excluded.size
"""

# name: hold chords  -- locks each until the commit: else the last two parts, ending at once, would not see each other
_HOLD_CHORDS = """
INSERT INTO chords AS c (group_id, size)
SELECT group_id, max(size) FROM unnest(%(group_ids)s::text[], %(sizes)s::int[]) AS v (group_id, size)
 GROUP BY group_id ORDER BY group_id
ON CONFLICT (group_id) DO UPDATE SET size = coalesce(c.size, excluded.size)
"""

# name: finish parts  -- adds to the set of finished parts; waiting -> released, once, when the set is whole
# A part that releases bears the moment of the release, so that it can be told later who did.
_FINISH_PARTS = f"""
WITH moment AS MATERIALIZED (
  SELECT clock_timestamp() AS at
), finished AS (
  INSERT INTO chord_parts (group_id, task_id, status, created_at)
  SELECT v.group_id, v.task_id, v.status, moment.at
    FROM moment, unnest(%(group_ids)s::text[], %(task_ids)s::text[], %(statuses)s::text[])
         AS v (group_id, task_id, status)
    JOIN chords c USING (group_id)
   WHERE c.released_at IS NULL
  ON CONFLICT (group_id, task_id) DO NOTHING
  RETURNING group_id
)
UPDATE chords c SET released_at = moment.at
  FROM moment
 WHERE c.group_id = ANY(%(group_ids)s::text[]) AND c.released_at IS NULL
   AND c.size <= (SELECT count(*) FILTER (WHERE p.status <> '{ADDED}') - count(*) FILTER (WHERE p.status = '{ADDED}')
                    FROM chord_parts p WHERE p.group_id = c.group_id)
               + (SELECT count(*) FROM finished f WHERE f.group_id = c.group_id)
RETURNING c.group_id
"""

# name: released by  -- reads whether this part released the chord, and its callback is not known to be on its way
_RELEASED_BY = """
SELECT FROM chords c JOIN chord_parts p USING (group_id)
 WHERE c.group_id = %(group_id)s AND p.task_id = %(task_id)s AND p.created_at = c.released_at
"""

# name: forget parts  -- the callback is on its way: the chord stays released, and its parts are of no more use
_FORGET_PARTS = "DELETE FROM chord_parts WHERE group_id = %(group_id)s"


def store(cursor: Cursor, result: StoredResult) -> bool:
    """Keep a state, and wake who waits if it is an end. False: what is there stays (``date_done`` is not looked at)."""
    cursor.execute(
        _STORE,
        {
            "task_id": result.task_id,
            "status": result.status,
            "result": result.result,
            "traceback": result.traceback,
            "children": result.children,
            "meta": result.meta,
        },
    )
    return cursor.fetchone() is not None


def fetch(cursor: Cursor, task_id: str) -> StoredResult | None:
    """The state and result of one task, or None where Celery says PENDING of an unknown id."""
    return fetch_many(cursor, [task_id]).get(task_id)


def fetch_many(cursor: Cursor, task_ids: Collection[str]) -> dict[str, StoredResult]:
    """The states and results of the tasks that are known, by id."""
    _FETCH.execute(cursor, {"task_ids": list(task_ids)})
    return {row[0]: StoredResult(*row) for row in cursor.fetchall()}


def forget(cursor: Cursor, task_id: str) -> None:
    """Remove a task's result."""
    cursor.execute(_FORGET, {"task_id": task_id})


def size_chord(cursor: Cursor, group_id: str, size: int) -> None:
    """Say how many parts the chord waits for; to be committed before the last of them is published."""
    cursor.execute(_SIZE_CHORD, {"group_id": group_id, "size": size})


def finish_parts(cursor: Cursor, parts: Sequence[Part]) -> set[str]:
    """Note parts that have ended; the groups whose chord this very call released.

    The chords stay locked until the commit: call it late in a transaction.
    """
    group_ids = [part.group_id for part in parts]
    cursor.execute(_HOLD_CHORDS, {"group_ids": group_ids, "sizes": [part.size for part in parts]})
    cursor.execute(
        _FINISH_PARTS,
        {
            "group_ids": group_ids,
            "task_ids": [part.task_id for part in parts],
            "statuses": [part.status for part in parts],
        },
    )
    return {row[0] for row in cursor.fetchall()}


def finish_part(cursor: Cursor, group_id: str, task_id: str, status: str, size: int | None = None) -> bool:
    """Note one part that has ended. True, once in a chord's life: this call released it."""
    return group_id in finish_parts(cursor, [Part(group_id, task_id, status, size)])


def released_by(cursor: Cursor, group_id: str, task_id: str) -> bool:
    """Whether this part released the chord, as long as `forget_parts` was not called.

    For who could not hear the answer to its commit, or died before it had published the callback.
    """
    cursor.execute(_RELEASED_BY, {"group_id": group_id, "task_id": task_id})
    return cursor.fetchone() is not None


def forget_parts(cursor: Cursor, group_id: str) -> None:
    """Note that the callback of a released chord is on its way."""
    cursor.execute(_FORGET_PARTS, {"group_id": group_id})
