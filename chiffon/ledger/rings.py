"""To ring is to lease: who publishes a doorbell holds the task's ring for a while."""

from __future__ import annotations

from collections.abc import Sequence

from chiffon.domain.tasks import Ring
from chiffon.ledger.connect import Cursor
from chiffon.ledger.planned import AT_LEISURE, LOOKING_UP, NOW, ONE_BY_ONE, Planned

LARGEST = 65_536
"""Bytes of parameters, arguments, or what is embedded, beyond which a doorbell's body is left empty anyway."""


def _if_it_is_rung(column: str, instead: str) -> str:
    """A column that a doorbell says; of hundreds that are leased at once, nobody needs what is too large for one."""
    return f"CASE WHEN octet_length(t.{column}::text) > {LARGEST} THEN {instead} ELSE t.{column} END AS {column}"


RING_COLUMNS = f"""t.task_id, t.ring_no, t.request_id, t.trace_id, t.work_type, t.queue, t.priority,
  {_if_it_is_rung("parameters", "'{}'")}, {_if_it_is_rung("arguments", "'[]'")},
  {_if_it_is_rung("canvas", "t.canvas - 'embed'")}, t.retries"""

RING_NAMES = """task_id, ring_no, request_id, trace_id, work_type, queue, priority, parameters, arguments, canvas,
  retries"""

# name: lease  -- pending: the next ring is this caller's; each ring doubles the wait until somebody else rings
# (a claim takes a ring number too, and an execution number)
_LEASE = f"""
WITH due AS (
  SELECT task_id FROM tasks
   WHERE status = 'pending' AND next_ring_at <= {NOW}
   ORDER BY next_ring_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE tasks t
   SET ring_no = t.ring_no + 1,
       next_ring_at = clock_timestamp()
         + make_interval(secs => %(lease)s * 2 ^ greatest(0, least(t.ring_no - 2 * t.execution, 6)))
  FROM due d WHERE t.task_id = d.task_id
RETURNING {RING_COLUMNS}
"""

# name: confirm  -- pending -> queued, only while the ring that was confirmed is the newest
# Who holds one of them moves it on; else it is rung once more than needed, which is harmless. Waiting for it is not:
# the confirms of many are written down at once. Nor does anybody wait for the disk: what a crash of Postgres undoes is
# rung once more, too.
_CONFIRM = Planned(
    "confirm",
    f"""
WITH rung AS (
  SELECT t.task_id FROM unnest(%(task_ids)s::text[], %(ring_nos)s::int[]) AS c (task_id, ring_no) CROSS JOIN LATERAL (
    SELECT task_id, status, ring_no FROM tasks WHERE task_id = c.task_id {ONE_BY_ONE} FOR UPDATE SKIP LOCKED) AS t
   WHERE t.status = 'pending' AND t.ring_no = c.ring_no
), moved AS (
  UPDATE tasks t
     SET status = 'queued', queued_at = clock_timestamp(), next_ring_at = NULL, history_no = t.history_no + 1
    FROM rung r WHERE t.task_id = r.task_id
  RETURNING t.task_id, t.history_no
)
INSERT INTO task_history (task_id, number, status) SELECT task_id, history_no, 'queued' FROM moved
""",
    before=(LOOKING_UP, AT_LEISURE),
)


def lease(cursor: Cursor, *, limit: int, lease: float) -> list[Ring]:
    """Lease up to ``limit`` rings that are due; ``lease`` is the first wait in seconds, doubled by each ring."""
    cursor.execute(_LEASE, {"limit": limit, "lease": lease})
    return [Ring(*row) for row in cursor.fetchall()]


def confirm(cursor: Cursor, rings: Sequence[tuple[str, int]]) -> int:
    """Note that the broker has confirmed these (task id, ring number); how many tasks it moved to `queued`.

    ``cursor``: each of its statements commits by itself: this is one, and a crash of Postgres may undo it.
    """
    _CONFIRM.execute(cursor, {"task_ids": [r[0] for r in rings], "ring_nos": [r[1] for r in rings]})
    return int(cursor.rowcount)
