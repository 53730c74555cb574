"""The sweeper's finds: what is due, what nobody wants any more, and dead letters that are owed."""

from __future__ import annotations

import re
from contextlib import closing
from typing import Any

import pytest

from chiffon.domain.states import State
from chiffon.domain.tasks import Ring
from chiffon.domain.verdicts import Failed
from chiffon.ledger import rings, sweeps
from chiffon.ledger.connect import open_session, session_transaction
from tests.bench import TTL, Bench, listening
from tests.builders import an_error


def debts(bench: Bench, older: float = 10.0) -> list[tuple[Ring, int, str]]:
    """What is owed for longer."""
    with bench.transaction() as cursor:
        return list(sweeps.debts(cursor, limit=100, older=older, lease=5))


@pytest.mark.parametrize(
    ("statement", "moment", "values"),
    [
        (sweeps._DUE, "run_at", {"limit": 500}),
        (sweeps._LATE, "expires_at", {"limit": 500}),
        (sweeps._DEBTS, "finished_at", {"older": 10.0, "limit": 500, "lease": 5.0}),
        (rings._LEASE, "next_ring_at", {"limit": 500, "lease": 5.0}),
        (sweeps._OVERDUE_QUEUES, "queued_at", {"older_than": 30.0, "offline_after": 180.0}),
        (
            sweeps._LOST,
            "queued_at",
            {"queue": "work_queue", "priority": None, "rung_before": None, "older_than": 30.0, "limit": 500},
        ),
    ],
    ids=["due", "late", "debts", "lease", "overdue queues", "lost"],
)
def test_what_a_sweep_looks_for_is_found_by_its_time_and_not_by_reading_all_that_waits(
    bench: Bench, statement: str, moment: str, values: dict[str, Any]
) -> None:
    with closing(open_session(bench.url, "sweeper")) as session, session_transaction(session) as cursor:
        cursor.execute(f"EXPLAIN {statement}", values)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert re.search(rf"Index Cond: .*\b{moment} <", plan), plan


def test_scheduled_work_is_pending_and_rung_when_its_time_has_come(bench: Bench) -> None:
    task_id = bench.born(delay=60.0)
    assert bench.due() == 0
    bench.pass_time(61)
    assert bench.due() == 1
    row = bench.row(task_id)
    assert (row["status"], row["run_at"]) == ("pending", None)
    assert bench.sql("SELECT next_ring_at <= clock_timestamp() FROM tasks") == [(True,)]
    assert bench.history(task_id) == ["scheduled", "pending"]


def test_what_is_due_comes_in_the_order_of_its_time_and_in_bounded_batches(bench: Bench) -> None:
    late, early, later = (bench.born(delay=delay) for delay in (50.0, 40.0, 60.0))
    bench.pass_time(100)
    with bench.transaction() as cursor:
        assert sweeps.due(cursor, limit=2) == 2
    assert [bench.status(task_id) for task_id in (early, late, later)] == ["pending", "pending", "scheduled"]


def test_expired_work_ends_with_all_that_an_end_is(bench: Bench) -> None:
    task_id = bench.born(expires_in=60.0)
    bench.pass_time(61)
    with listening(bench) as heard:
        assert bench.expire() == [task_id]
        assert heard() == [task_id]
    row = bench.row(task_id)
    assert (row["status"], row["next_ring_at"], row["finished_at"] is not None) == ("expired", None, True)
    word, result = bench.result(task_id) or ("", None)
    assert (word, result["exc_type"]) == ("REVOKED", "TaskRevokedError")
    assert bench.history(task_id) == ["pending", "expired"]
    assert bench.sql("SELECT expires_at > clock_timestamp() FROM request_keys") == [(True,)]
    assert bench.expire() == []


def test_a_retry_may_expire_while_it_waits(bench: Bench) -> None:
    task_id = bench.task_in(State.RETRYING, expires_in=60.0)
    bench.pass_time(61)
    assert bench.expire() == [task_id]


def test_work_that_has_begun_does_not_expire(bench: Bench) -> None:
    bench.task_in(State.RUNNING, expires_in=60.0)
    bench.pass_time(61)
    assert bench.expire() == []


def test_a_dead_letter_is_owed_until_it_is_paid_after_its_holders_time_is_over(bench: Bench) -> None:
    claim = bench.claimed(bench.born(parameters={"input": 7}))
    bench.settle(claim, Failed(an_error("it said no")))
    assert debts(bench) == []
    bench.pass_time(11)
    ((ring, execution, died_at, reason),) = debts(bench)
    assert (ring.task_id, execution, reason) == (claim.task_id, claim.execution, "it said no")
    assert (ring.parameters, died_at) == ({"input": 7}, bench.row(claim.task_id)["finished_at"])
    assert debts(bench) == []  # whoever pays it has it for a while
    bench.pass_time(1000)
    assert len(debts(bench)) == 1
    bench.sql("UPDATE tasks SET dead_letter_owed = false")
    assert debts(bench) == []


def test_only_failed_and_dead_lettered_tasks_owe_a_letter(bench: Bench) -> None:
    tasks = bench.in_every_state()
    bench.pass_time(11)
    assert {ring.task_id for ring, *_ in debts(bench)} == {tasks[State.FAILED], tasks[State.DEAD_LETTERED]}


def test_two_sweepers_move_no_task_twice(bench: Bench) -> None:
    tasks = {bench.born(delay=60.0) for _ in range(6)}
    bench.pass_time(61)
    with bench.transaction() as one, bench.transaction() as other:
        assert sweeps.due(one, limit=4) + sweeps.due(other, limit=9) == 6
    assert {bench.status(task_id) for task_id in tasks} == {"pending"}
    bench.sql("UPDATE tasks SET expires_at = clock_timestamp()")
    with bench.transaction() as one, bench.transaction() as other:
        found = sweeps.expire(one, limit=4, ttl=TTL), sweeps.expire(other, limit=9, ttl=TTL)
    assert sorted(found[0] + found[1]) == sorted(tasks)
