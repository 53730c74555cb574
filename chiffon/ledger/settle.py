"""Settling: result, end and log in one commit, guarded by the execution number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from chiffon.domain.retry import LONGEST_WAIT
from chiffon.domain.states import CELERY_STATES, ENDS
from chiffon.domain.values import canonical
from chiffon.domain.verdicts import (
    Cancelled,
    Completed,
    Crashed,
    DeadLettered,
    Failed,
    GivenBack,
    Replaced,
    RetryLater,
    TimedOut,
    Verdict,
    WorkError,
)
from chiffon.ledger.connect import Cursor
from chiffon.ledger.effects import HELD, TAIL, WOKEN
from chiffon.ledger.planned import DURABLY, ONE_BY_ONE, Planned


@dataclass(frozen=True)
class Settlement:
    """One execution's verdict. ``ran_for``: seconds since it started, None if it never did.

    ``anew``: what is to run next time in the place of the same, if that is not the same (a work type's name,
    arguments, parameters, canvas and queue, as JSON text). ``children`` is what Celery keeps beside a result, as JSON
    text. ``caught``: whether the caller writes down, in the same transaction, what the end
    sets off. ``dead_letter``: whether the message of a failure belongs in ``dlx_queue``.
    """

    task_id: str
    execution: int
    verdict: Verdict
    ran_for: float | None = None
    children: str | None = None
    anew: str | None = None
    caught: bool = False
    dead_letter: bool = True


class Recorded(NamedTuple):
    """The ledger has it. ``fresh``: by this very call; else an earlier call with the same number had done it."""

    status: str
    owes_dead_letter: bool
    fresh: bool


class Fenced(NamedTuple):
    """Another execution holds the task by now: this verdict counts for nothing."""


def celery_state_sql(column: str) -> str:
    """The CASE that says a status in Celery's word for it."""
    cases = " ".join(f"WHEN '{state}' THEN '{word}'" for state, word in CELERY_STATES.items())
    return f"CASE {column} {cases} END"


def celery_error_sql(error: str) -> str:
    """The JSON in which Celery's clients expect an exception, from an error as the ledger keeps it."""
    return (
        f"jsonb_build_object('exc_type', {error} ->> 'type', 'exc_module', {error} ->> 'module', "
        f"'exc_message', coalesce({error} -> 'arguments', jsonb_build_array({error} ->> 'message')))"
    )


_ENDS = ", ".join(f"'{state}'" for state in sorted(ENDS))

# name: settle  -- running -> an end | retrying | pending, only for the execution that holds the claim
# A cancel that was asked for takes the place of a failure and of every way back to work; a result wins.
# The last crash that is allowed takes the place of another run.
_SETTLE = Planned(
    "settle",
    f"""
WITH verdicts AS (
  SELECT task_id, execution, coalesce(goal, 'completed') AS goal, coalesce(outcome, 'completed') AS outcome, result,
         error, ran_for, coalesce(after, 0) AS after, coalesce(withdrawn, false) AS withdrawn,
         coalesce(dead_letter, true) AS dead_letter, children, anew, coalesce(caught, true) AS caught
    FROM unnest(%(task_ids)s::text[], %(executions)s::int[], %(goals)s::text[], %(outcomes)s::text[],
                %(results)s::text[], %(errors)s::text[], %(ran_for)s::float8[], %(after)s::float8[],
                %(withdrawn)s::bool[], %(dead_letters)s::bool[], %(children)s::text[], %(anew)s::jsonb[],
                %(caught)s::bool[])
         AS v (task_id, execution, goal, outcome, result, error, ran_for, after, withdrawn, dead_letter, children,
               anew, caught)
), held AS (
  SELECT v.*, v.outcome = 'crashed' AS crashed, make_interval(secs => least(v.after, {LONGEST_WAIT})) AS wait,
         CASE WHEN t.cancel_requested_at IS NOT NULL AND v.goal IN ('retrying', 'pending', 'failed') THEN 'cancelled'
              WHEN v.outcome = 'crashed' AND t.crashes + 1 >= %(max_crashes)s THEN 'dead_lettered'
              ELSE v.goal END AS status
    FROM verdicts v CROSS JOIN LATERAL (
      SELECT status, cancel_requested_at, crashes FROM tasks
       WHERE task_id = v.task_id AND execution = v.execution {ONE_BY_ONE}) AS t
   WHERE t.status = 'running'
), moved AS (
  UPDATE tasks t
     SET status = h.status, incarnation = NULL, claim_token = NULL, history_no = t.history_no + 1,
         attempts = t.attempts - h.withdrawn::int,
         retries = t.retries + (h.status = 'retrying')::int,
         crashes = t.crashes + h.crashed::int,
         give_backs = t.give_backs + (h.outcome = 'given_back')::int,
         run_at = CASE WHEN h.status = 'retrying' THEN clock_timestamp() + h.wait END,
         next_ring_at = CASE WHEN h.status = 'pending' THEN clock_timestamp() + h.wait END,
         queued_at = CASE WHEN h.status IN ('retrying', 'pending') THEN NULL ELSE t.queued_at END,
         started_at = coalesce(t.started_at, clock_timestamp() - make_interval(secs => h.ran_for)),
         finished_at = CASE WHEN h.status IN ({_ENDS}) THEN clock_timestamp() END,
         dead_letter_owed = h.status IN ('failed', 'dead_lettered') AND h.dead_letter,
         error = coalesce(h.error, CASE WHEN h.status = 'cancelled' THEN
           '{{"type": "TaskRevokedError", "module": "celery.exceptions", "message": "cancelled"}}' END)::jsonb,
         work_type = coalesce(h.anew ->> 'work_type', t.work_type), queue = coalesce(h.anew ->> 'queue', t.queue),
         arguments = coalesce(h.anew -> 'arguments', t.arguments),
         parameters = coalesce(h.anew -> 'parameters', t.parameters), canvas = coalesce(h.anew -> 'canvas', t.canvas)
    FROM held h WHERE t.task_id = h.task_id
  RETURNING t.task_id, t.request_id, t.trace_id, t.priority, t.canvas, t.execution, t.agent_id, t.status,
            t.history_no, t.started_at, t.finished_at, t.dead_letter_owed, t.error, h.caught,
            h.outcome, h.withdrawn, h.result, h.children
), logged AS (
  UPDATE executions e
     SET started_at = m.started_at, finished_at = clock_timestamp(), outcome = m.outcome, error = m.error
    FROM moved m WHERE e.task_id = m.task_id AND e.execution = m.execution AND NOT m.withdrawn
), struck AS (
  DELETE FROM executions e USING moved m WHERE e.task_id = m.task_id AND e.execution = m.execution AND m.withdrawn
), returned AS (
  INSERT INTO task_history (task_id, number, status, execution, agent_id, detail)
  SELECT task_id, history_no, status, execution, agent_id, outcome || coalesce(': ' || (error ->> 'message'), '')
    FROM moved WHERE finished_at IS NULL
), ended AS (
  SELECT task_id, request_id, trace_id, priority, canvas, NOT caught AS uncaught, status, execution, agent_id,
         finished_at, history_no, error,
         error ->> 'message' AS detail, {celery_state_sql("status")} AS celery_state,
         CASE WHEN status = 'completed' THEN result::jsonb ELSE {celery_error_sql("error")} END AS result,
         error ->> 'traceback' AS traceback, children::jsonb AS children
    FROM moved WHERE finished_at IS NOT NULL
) {TAIL}
SELECT task_id, execution, status, dead_letter_owed, {WOKEN} FROM moved
""",
    before=(HELD, DURABLY),
)

# name: already settled  -- reads which executions an earlier, unanswered settlement had closed
_ALREADY = """
SELECT v.task_id, v.execution, t.status, t.dead_letter_owed AND t.execution = v.execution
  FROM unnest(%(task_ids)s::text[], %(executions)s::int[]) AS v (task_id, execution)
  JOIN tasks t USING (task_id)
  LEFT JOIN executions e ON e.task_id = v.task_id AND e.execution = v.execution
 WHERE e.outcome <> 'agent_lost' OR (e.task_id IS NULL AND t.execution >= v.execution)
"""

# name: clear debt  -- the dead letter of an execution is known to be in dlx_queue; that of a later one is its own debt
_CLEAR_DEBT = """
UPDATE tasks t SET dead_letter_owed = false
  FROM unnest(%(task_ids)s::text[], %(executions)s::int[]) AS p (task_id, execution)
 WHERE t.task_id = p.task_id AND t.execution = p.execution AND t.dead_letter_owed
"""


def settle(
    cursor: Cursor, settlements: Sequence[Settlement], *, ttl: float, max_crashes: int
) -> dict[tuple[str, int], Recorded | Fenced]:
    """Write down how executions came out.

    Args:
        cursor: in a transaction, or with one for each statement: this is one, in one round trip.
        settlements: no two of one task.
        ttl: seconds for which a ``request_id`` still answers with an ended task.
        max_crashes: crashes after which a task is dead-lettered.

    Returns:
        By (task id, execution) what became of it. Repeating a settlement whose answer was lost is a success.
    """
    _SETTLE.execute(cursor, {**_columns(settlements), "ttl": ttl, "max_crashes": max_crashes})
    found: dict[tuple[str, int], Recorded | Fenced] = {
        (task_id, execution): Recorded(status, owed, fresh=True)
        for task_id, execution, status, owed, _ in cursor.fetchall()
    }
    missed = [key for s in settlements if (key := (s.task_id, s.execution)) not in found]
    if missed:
        cursor.execute(_ALREADY, {"task_ids": [key[0] for key in missed], "executions": [key[1] for key in missed]})
        found |= {key: Fenced() for key in missed}
        found |= {(row[0], row[1]): Recorded(row[2], row[3], fresh=False) for row in cursor.fetchall()}
    return found


def clear_debts(cursor: Cursor, paid: Sequence[tuple[str, int]]) -> None:
    """Note that the dead letters of these (task id, execution) have reached ``dlx_queue``.

    The letter may have been replayed by now: what the task has come to owe since is not paid by that.
    """
    cursor.execute(_CLEAR_DEBT, {"task_ids": [key[0] for key in paid], "executions": [key[1] for key in paid]})


class _Plan(NamedTuple):
    """A verdict in the ledger's columns."""

    goal: str
    outcome: str
    result: str | None = None
    error: WorkError | None = None
    after: float = 0.0
    withdrawn: bool = False


def _plan(verdict: Verdict) -> _Plan:
    match verdict:
        case Completed(result):
            return _Plan("completed", "completed", result=result)
        case Failed(error):
            return _Plan("failed", "failed", error=error)
        case TimedOut(error):
            return _Plan("timed_out", "timed_out", error=error)
        case Cancelled(error):
            return _Plan("cancelled", "cancelled", error=error)
        case DeadLettered(error):
            return _Plan("dead_lettered", "dead_lettered", error=error)
        case RetryLater(after, error):
            return _Plan("retrying", "retried", error=error, after=after)
        case Crashed(error):
            return _Plan("pending", "crashed", error=error)
        case Replaced():
            return _Plan("pending", "replaced")
        case GivenBack(error, started, after):
            return _Plan("pending", "given_back", error=error, after=after, withdrawn=not started)


def _columns(settlements: Sequence[Settlement]) -> dict[str, list[Any]]:
    """The verdicts as the statement takes them: what is usual in all of them is not said at all."""
    plans = [_plan(s.verdict) for s in settlements]
    return {
        "task_ids": [s.task_id for s in settlements],
        "executions": [s.execution for s in settlements],
        "goals": _unusual([p.goal for p in plans], "completed"),
        "outcomes": _unusual([p.outcome for p in plans], "completed"),
        "results": [p.result for p in plans],
        "errors": _unusual([error_json(p.error) for p in plans], None),
        "ran_for": [s.ran_for for s in settlements],
        "after": _unusual([p.after for p in plans], 0.0),
        "withdrawn": _unusual([p.withdrawn for p in plans], False),
        "dead_letters": _unusual([s.dead_letter for s in settlements], True),
        "children": _unusual([s.children for s in settlements], None),
        "anew": _unusual([s.anew for s in settlements], None),
        "caught": _unusual([s.caught for s in settlements], True),
    }


def _unusual(values: list[Any], usual: Any) -> list[Any]:
    """The values, or nothing if all are as usual: unnest fills up with NULL what is shorter."""
    return [] if values.count(usual) == len(values) else values


def error_json(error: WorkError | None) -> str | None:
    """An error as the ledger keeps it: JSON text without the members that are None."""
    if error is None:
        return None
    members = {name: getattr(error, name) for name in error.__dataclass_fields__}
    return canonical({name: value for name, value in members.items() if value is not None})
