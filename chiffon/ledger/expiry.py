"""What Celery's results leave behind goes when its time is over, in batches."""

from __future__ import annotations

from typing import NamedTuple

from chiffon.ledger.connect import Cursor
from chiffon.ledger.effects import releasing

START = "-infinity"
"""Where the first batch begins."""


class Batch(NamedTuple):
    """How many rows went, and the moment of the newest of them, at which the next batch begins."""

    deleted: int
    newest: str


# name: expire results  -- deletes the old ones, but for two kinds:
# those of the ledger's own tasks, which live as long as the task, and those that a chord still waits to read, or reads.
# now() and not clock_timestamp(): a volatile function would read the whole table.
_EXPIRE_RESULTS = f"""
WITH old AS (
  SELECT r.task_id FROM results r
   WHERE r.date_done >= %(after)s::timestamptz
     AND r.date_done < now() - make_interval(secs => least(%(age)s, %(failure_age)s))
     AND r.date_done < now() - make_interval(
           secs => CASE r.status WHEN 'FAILURE' THEN %(failure_age)s ELSE %(age)s END)
     AND NOT EXISTS (SELECT FROM tasks t WHERE t.task_id = r.task_id)
     AND NOT EXISTS (SELECT FROM chords c WHERE c.group_id = r.meta ->> 'group_id'
                        AND (c.released_at IS NULL OR {releasing("c.group_id")}))
   ORDER BY r.date_done LIMIT %(limit)s FOR UPDATE OF r SKIP LOCKED
), gone AS (
  DELETE FROM results r USING old WHERE r.task_id = old.task_id RETURNING r.date_done
)
SELECT count(*), max(date_done)::text FROM gone
"""

# name: expire groups  -- deletes the old ones, but for those of a chord that waits, or is read
_EXPIRE_GROUPS = f"""
WITH old AS (
  SELECT g.group_id FROM result_groups g
   WHERE g.date_done >= %(after)s::timestamptz AND g.date_done < now() - make_interval(secs => %(age)s)
     AND NOT EXISTS (SELECT FROM chords c WHERE c.group_id = g.group_id
                        AND (c.released_at IS NULL OR {releasing("c.group_id")}))
   ORDER BY g.date_done LIMIT %(limit)s FOR UPDATE OF g SKIP LOCKED
), gone AS (
  DELETE FROM result_groups g USING old WHERE g.group_id = old.group_id RETURNING g.date_done
)
SELECT count(*), max(date_done)::text FROM gone
"""

# name: expire chords  -- deletes those in which nothing has happened for long, with their parts; but for one whose body
# is about to be gone on with
_EXPIRE_CHORDS = f"""
WITH old AS (
  SELECT c.group_id FROM chords c
   WHERE c.created_at >= %(after)s::timestamptz AND c.created_at < now() - make_interval(secs => %(age)s)
     AND NOT EXISTS (SELECT FROM chord_parts p
                      WHERE p.group_id = c.group_id AND p.created_at >= now() - make_interval(secs => %(age)s))
     AND NOT {releasing("c.group_id")}
   ORDER BY c.created_at LIMIT %(limit)s FOR UPDATE OF c SKIP LOCKED
), parts AS (
  DELETE FROM chord_parts p USING old WHERE p.group_id = old.group_id
), gone AS (
  DELETE FROM chords c USING old WHERE c.group_id = old.group_id RETURNING c.created_at
)
SELECT count(*), max(created_at)::text FROM gone
"""


def expire_results(cursor: Cursor, *, age: float, failure_age: float, limit: int, after: str = START) -> Batch:
    """Delete up to ``limit`` results older than ``age`` seconds; a FAILURE when older than ``failure_age``."""
    return _batch(cursor, _EXPIRE_RESULTS, age=age, failure_age=failure_age, limit=limit, after=after)


def expire_groups(cursor: Cursor, *, age: float, limit: int, after: str = START) -> Batch:
    """Delete up to ``limit`` saved groups older than ``age`` seconds."""
    return _batch(cursor, _EXPIRE_GROUPS, age=age, limit=limit, after=after)


def expire_chords(cursor: Cursor, *, age: float, limit: int, after: str = START) -> Batch:
    """Delete up to ``limit`` chords, waiting or released, whose newest part is older than ``age`` seconds."""
    return _batch(cursor, _EXPIRE_CHORDS, age=age, limit=limit, after=after)


def _batch(cursor: Cursor, statement: str, *, after: str, **values: float) -> Batch:
    cursor.execute(statement, {"after": after, **values})
    deleted, newest = cursor.fetchone()
    return Batch(deleted, newest or after)
