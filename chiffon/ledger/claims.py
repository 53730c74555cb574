"""Claiming: no claim, no run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chiffon.domain.states import ENDS
from chiffon.domain.tasks import Absent, Claim, Fate, HeldElsewhere, NewTask, NotDue, Settled
from chiffon.ledger.accept import BEAR, born_from
from chiffon.ledger.connect import Cursor
from chiffon.ledger.planned import DURABLY, Planned

_CLAIM_COLUMNS = """t.task_id, t.execution, t.request_id, t.trace_id, t.work_type, t.queue, t.priority, t.parameters,
  t.arguments, t.canvas, t.fingerprint, t.timeout, t.soft_timeout, t.max_retries, t.retries, t.crashes, t.give_backs,
  t.attempts, t.origin, t.queued_at"""
_AGE = "extract(epoch FROM clock_timestamp() - created_at)::float8"

# name: claim  -- pending | queued | retrying (when due) -> running, by this incarnation
# The rows are locked in the order of their ids, so that agents who race for the same ones cannot deadlock; what a
# racer took is re-read after its commit, and is then no longer ready. A claim uses up the rings so far: a confirm of
# one that is written down only later must not make a task that came back look rung.
_CLAIM = Planned(
    "claim",
    f"""
WITH offered AS (
  SELECT * FROM unnest(%(task_ids)s::text[], %(tokens)s::uuid[]) AS o (task_id, token) ORDER BY task_id
), ready AS (
  SELECT t.task_id, o.token FROM offered o CROSS JOIN LATERAL (
    SELECT task_id FROM tasks
     WHERE task_id = o.task_id
       AND (status IN ('pending', 'queued') OR (status = 'retrying' AND run_at <= clock_timestamp()))
       AND follows IS NULL
       AND cancel_requested_at IS NULL
       AND (expires_at IS NULL OR expires_at > clock_timestamp())
       FOR UPDATE) AS t
), claimed AS (
  UPDATE tasks t
     SET status = 'running', execution = t.execution + 1, attempts = t.attempts + 1, incarnation = %(incarnation)s,
         agent_id = %(agent_id)s, claim_token = r.token, claimed_at = clock_timestamp(), started_at = NULL,
         ring_no = t.ring_no + 1, next_ring_at = NULL, run_at = NULL, progress = NULL, history_no = t.history_no + 1
    FROM ready r WHERE t.task_id = r.task_id
  RETURNING {_CLAIM_COLUMNS}, t.created_at, t.history_no
), logged AS (
  INSERT INTO executions (task_id, execution, incarnation, agent_id)
  SELECT task_id, execution, %(incarnation)s, %(agent_id)s FROM claimed
), told AS (
  INSERT INTO task_history (task_id, number, status, execution, agent_id)
  SELECT task_id, history_no, 'running', execution, %(agent_id)s FROM claimed
)
SELECT {_CLAIM_COLUMNS.replace("t.", "")}, {_AGE} FROM claimed
""",
    before=(DURABLY,),
)

# name: bear and claim  -- (new) -> pending -> running, in one round trip
_BEAR_AND_CLAIM = Planned(_CLAIM.name, _CLAIM.text, before=(DURABLY, BEAR))

# name: why not  -- reads the state of what could not be claimed; a repeated claim finds its own by the token
_WHY_NOT = f"""
SELECT t.status, t.incarnation, t.claim_token = o.token AS own, {_CLAIM_COLUMNS}, {_AGE}
  FROM tasks t
  JOIN unnest(%(task_ids)s::text[], %(tokens)s::uuid[]) AS o (task_id, token) USING (task_id)
"""

# name: mark started  -- running: the run itself has begun; time limits count from here
_MARK_STARTED = """
WITH begun AS (
  SELECT * FROM unnest(%(task_ids)s::text[], %(executions)s::int[], %(ago)s::float8[]) AS b (task_id, execution, ago)
), marked AS (
  UPDATE tasks t SET started_at = clock_timestamp() - make_interval(secs => b.ago)
    FROM begun b
   WHERE t.task_id = b.task_id AND t.execution = b.execution AND t.status = 'running' AND t.started_at IS NULL
  RETURNING t.task_id, t.execution, t.started_at
)
UPDATE executions e SET started_at = m.started_at
  FROM marked m WHERE e.task_id = m.task_id AND e.execution = m.execution
"""

# name: progress  -- running: how far the work says it is; only by the execution that holds the claim
_PROGRESS = """
UPDATE tasks SET progress = %(progress)s::jsonb
 WHERE task_id = %(task_id)s AND execution = %(execution)s AND status = 'running'
"""

# name: asked to stop  -- reads which of an incarnation's tasks somebody wants cancelled
_ASKED_TO_STOP = """
SELECT task_id, execution, extract(epoch FROM clock_timestamp() - cancel_requested_at)::float8
  FROM tasks WHERE incarnation = %(incarnation)s AND status = 'running' AND cancel_requested_at IS NOT NULL
"""


def claim(
    cursor: Cursor,
    offers: Mapping[str, str],
    *,
    incarnation: int,
    agent_id: str,
    born: Sequence[NewTask] = (),
    lease: float = 0.0,
) -> dict[str, Fate]:
    """Claim whichever of the offered tasks may run now.

    Args:
        cursor: of the incarnation's own session; in a transaction, or with one for each statement: this is one.
        offers: by task id, the token (a UUID) of this attempt: repeated with it, a claim finds its own.
        incarnation: whose claims these are; it must hold its lock.
        agent_id: its name, for people.
        born: tasks among them to be written down first, unless they are there: none of them keyed (see `accept`).
        lease: seconds until the sweeper rings for one of those that could not be claimed at once.

    Returns:
        For each task id what the claim found.
    """
    parameters = {
        "task_ids": list(offers),
        "tokens": list(offers.values()),
        "incarnation": incarnation,
        "agent_id": agent_id,
    }
    if born:
        _BEAR_AND_CLAIM.execute(cursor, parameters | born_from(born, lease=lease))
    else:
        _CLAIM.execute(cursor, parameters)
    fates: dict[str, Fate] = {row[0]: Claim(*row) for row in cursor.fetchall()}
    if len(fates) < len(offers):
        left = {task_id: token for task_id, token in offers.items() if task_id not in fates}
        cursor.execute(_WHY_NOT, {"task_ids": list(left), "tokens": list(left.values())})
        fates |= {task_id: Absent(task_id) for task_id in left}
        fates |= {row[3]: _why_not(*row) for row in cursor.fetchall()}
    return fates


def _why_not(status: str, incarnation: int | None, own: bool, *columns: Any) -> Fate:
    task_id: str = columns[0]
    if own:
        return Claim(*columns)
    if status in ENDS:
        return Settled(task_id, status)
    if status == "running" and incarnation is not None:
        return HeldElsewhere(task_id, incarnation)
    return NotDue(task_id)


def mark_started(cursor: Cursor, starts: Mapping[tuple[str, int], float]) -> None:
    """Write down that runs have begun: by (task id, execution), how many seconds ago."""
    cursor.execute(
        _MARK_STARTED,
        {
            "task_ids": [task_id for task_id, _ in starts],
            "executions": [execution for _, execution in starts],
            "ago": list(starts.values()),
        },
    )


def record_progress(cursor: Cursor, task_id: str, execution: int, progress: str) -> bool:
    """Keep what the work says of itself (JSON text). False: the execution no longer holds the task."""
    cursor.execute(_PROGRESS, {"task_id": task_id, "execution": execution, "progress": progress})
    return bool(cursor.rowcount)


def asked_to_stop(cursor: Cursor, incarnation: int) -> dict[tuple[str, int], float]:
    """Which of this incarnation's executions somebody wants cancelled, and since how many seconds."""
    cursor.execute(_ASKED_TO_STOP, {"incarnation": incarnation})
    return {(task_id, execution): since for task_id, execution, since in cursor.fetchall()}
