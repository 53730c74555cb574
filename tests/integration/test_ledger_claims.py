"""Claiming: no claim, no run; a repeated claim finds its own; what runs is the row."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chiffon.domain.states import State
from chiffon.domain.tasks import Absent, Claim, Fate, HeldElsewhere, NewTask, NotDue, Settled
from chiffon.domain.verdicts import Completed
from chiffon.ledger import claims, control
from chiffon.ledger.connect import session_statements
from chiffon.ledger.follow import follow
from tests.bench import LEASE, TTL, Agent, Bench
from tests.builders import new_task


def test_a_claim_is_everything_that_a_run_needs(bench: Bench) -> None:
    task = new_task(
        parameters={"input": 1},
        arguments=[2],
        canvas={"root_id": "r"},
        priority=5,
        timeout=9.0,
        soft_timeout=8.0,
        max_retries=4,
    )
    bench.accept(task)
    found = bench.claimed(task.task_id)._asdict()
    for name in ("task_id", "request_id", "trace_id", "work_type", "queue", "priority", "parameters", "arguments"):
        assert found[name] == getattr(task, name)
    for name in ("canvas", "fingerprint", "timeout", "soft_timeout", "max_retries", "origin"):
        assert found[name] == getattr(task, name)
    assert (found["execution"], found["attempts"], found["retries"], found["crashes"], found["give_backs"]) == (
        1,
        1,
        0,
        0,
        0,
    )
    assert 0 <= found["age"] < 60


def test_a_claim_says_who_runs_it_and_is_logged_as_an_execution(bench: Bench) -> None:
    agent = bench.agent("worker@here")
    claim = bench.claimed(by=agent)
    row = bench.row(claim.task_id)
    assert (row["status"], row["incarnation"], row["agent_id"]) == ("running", agent.incarnation, "worker@here")
    assert (row["next_ring_at"], row["started_at"], row["finished_at"]) == (None, None, None)
    assert row["claimed_at"] is not None
    assert bench.sql("SELECT execution, incarnation, agent_id, outcome, started_at FROM executions") == [
        (1, agent.incarnation, "worker@here", None, None)
    ]
    assert bench.history(claim.task_id) == ["pending", "running"]


def test_a_claim_repeated_with_its_token_finds_its_own(bench: Bench) -> None:
    task_id, token = bench.born(), str(uuid.uuid4())
    first = bench.someone.claim(task_id, token=token)
    again = bench.someone.claim(task_id, token=token)
    assert isinstance(first, Claim)
    assert isinstance(again, Claim)
    assert (again.execution, again.attempts) == (first.execution, first.attempts) == (1, 1)
    assert bench.outcomes(task_id) == [None]


def test_a_token_opens_nothing_once_its_execution_has_ended(bench: Bench) -> None:
    task_id, token = bench.born(), str(uuid.uuid4())
    claim = bench.someone.claim(task_id, token=token)
    assert isinstance(claim, Claim)
    bench.settle(claim, Completed("1"))
    assert bench.someone.claim(task_id, token=token) == Settled(task_id, "completed")


def test_even_its_holder_cannot_claim_a_task_twice(bench: Bench) -> None:
    claim = bench.claimed()
    assert bench.someone.claim(claim.task_id) == HeldElsewhere(claim.task_id, bench.someone.incarnation)


def test_each_delivery_of_a_batch_gets_its_own_answer(bench: Bench) -> None:
    tasks = bench.in_every_state()
    found = bench.agent("other").claim_all([*tasks.values(), "nobody"])
    assert {type(found[tasks[state]]) for state in (State.PENDING, State.QUEUED)} == {Claim}
    assert found[tasks[State.RUNNING]] == HeldElsewhere(tasks[State.RUNNING], bench.someone.incarnation)
    assert found[tasks[State.FAILED]] == Settled(tasks[State.FAILED], "failed")
    assert found["nobody"] == Absent("nobody")


def test_an_expired_task_is_not_claimed_even_before_the_sweeper_has_seen_it(bench: Bench) -> None:
    task_id = bench.born(expires_in=60.0)
    bench.pass_time(61)
    assert bench.someone.claim(task_id) == NotDue(task_id)
    assert bench.status(task_id) == "pending"


def test_a_follower_is_not_claimed(bench: Bench) -> None:
    first = bench.born(request_id="r")
    second = new_task(request_id="r")
    with bench.transaction() as cursor:
        follow(cursor, second, first)
    assert bench.someone.claim(second.task_id) == NotDue(second.task_id)


def test_the_time_limit_counts_from_the_start_of_the_run_and_not_from_the_claim(bench: Bench) -> None:
    claim = bench.claimed()
    bench.pass_time(30)
    with bench.transaction() as cursor:
        claims.mark_started(cursor, {(claim.task_id, claim.execution): 2.0})
    row = bench.row(claim.task_id)
    assert (row["started_at"] - row["claimed_at"]).total_seconds() == pytest.approx(28, abs=1)
    assert bench.sql("SELECT started_at FROM executions") == [(row["started_at"],)]


def test_a_start_is_marked_once_and_only_for_the_execution_that_holds_the_task(bench: Bench) -> None:
    claim = bench.claimed()
    with bench.transaction() as cursor:
        claims.mark_started(cursor, {(claim.task_id, claim.execution + 1): 0.0})
    assert bench.row(claim.task_id)["started_at"] is None
    bench.start(claim)
    first = bench.row(claim.task_id)["started_at"]
    bench.start(claim)
    assert bench.row(claim.task_id)["started_at"] == first


def test_progress_is_kept_for_the_execution_that_holds_the_task_only(bench: Bench) -> None:
    claim = bench.claimed()
    with bench.transaction() as cursor:
        assert claims.record_progress(cursor, claim.task_id, claim.execution, '{"percent": 40}')
        assert not claims.record_progress(cursor, claim.task_id, claim.execution + 1, '{"percent": 90}')
    assert bench.row(claim.task_id)["progress"] == {"percent": 40}


def test_an_agent_hears_which_of_its_tasks_are_to_stop_and_since_when(bench: Bench) -> None:
    mine, other = bench.claimed(), bench.claimed(by=bench.agent("other"))
    bench.claimed()
    with bench.transaction() as cursor:
        assert control.ask_to_stop(cursor, mine.task_id)
        assert not control.ask_to_stop(cursor, mine.task_id)
        assert control.ask_to_stop(cursor, other.task_id)
    bench.pass_time(10)
    with bench.transaction() as cursor:
        asked = claims.asked_to_stop(cursor, bench.someone.incarnation)
    assert asked == {(mine.task_id, 1): pytest.approx(10, abs=1)}


def test_a_cancelled_task_is_not_claimed(bench: Bench) -> None:
    task_id = bench.born()
    with bench.transaction() as cursor:
        control.cancel_waiting(cursor, task_id, ttl=TTL)
    assert bench.someone.claim(task_id) == Settled(task_id, "cancelled")


def born_and_claimed(agent: Agent, *tasks: NewTask, token: str | None = None) -> dict[str, Fate]:
    """What the claim of messages finds that nobody has written down."""
    offers = {task.task_id: token or str(uuid.uuid4()) for task in tasks}
    with session_statements(agent.session) as cursor:
        return claims.claim(cursor, offers, incarnation=agent.incarnation, agent_id=agent.name, born=tasks, lease=LEASE)


def test_a_message_is_born_and_claimed_in_one_statement(bench: Bench) -> None:
    agent, token = bench.agent(), str(uuid.uuid4())
    task, later = new_task(keyed=False), new_task(keyed=False, delay=60.0)
    found = born_and_claimed(agent, task, later, token=token)
    claim = found[task.task_id]
    assert isinstance(claim, Claim)
    assert (claim.execution, claim.parameters) == (1, task.parameters)
    assert found[later.task_id] == NotDue(later.task_id)
    assert bench.history(task.task_id) == ["pending", "running"]
    assert bench.history(later.task_id) == ["scheduled"]
    again = born_and_claimed(agent, task, token=token)
    assert again[task.task_id]._replace(age=claim.age) == claim  # type: ignore[union-attr]
    assert bench.history(task.task_id) == ["pending", "running"]


def test_of_messages_that_come_together_each_has_its_own_fate(bench: Bench) -> None:
    agent, other = bench.agent(), bench.agent("other")
    fresh, waiting, ended, held = (new_task(keyed=False) for _ in range(4))
    expired = new_task(keyed=False, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    bench.accept(waiting, ended, held)
    bench.settle(bench.claimed(ended.task_id), Completed("1"))
    bench.claimed(held.task_id, by=other)
    found = born_and_claimed(agent, fresh, waiting, ended, held, expired)
    assert isinstance(found[fresh.task_id], Claim)
    assert isinstance(found[waiting.task_id], Claim)
    assert found[ended.task_id] == Settled(ended.task_id, "completed")
    assert found[held.task_id] == HeldElsewhere(held.task_id, other.incarnation)
    assert found[expired.task_id] == NotDue(expired.task_id)
    assert bench.row(expired.task_id)["status"] == "pending", "the sweeper ends it"
    assert bench.history(fresh.task_id) == ["pending", "running"]


def test_what_runs_is_the_row_whatever_a_message_says(bench: Bench) -> None:
    agent = bench.agent()
    row = new_task(keyed=False)
    bench.accept(row)
    other = replace(row, parameters={"input": "another"}, fingerprint="f" * 64)
    claim = born_and_claimed(agent, other)[row.task_id]
    assert isinstance(claim, Claim)
    assert (claim.parameters, claim.fingerprint) == (row.parameters, row.fingerprint)
    bench.settle(claim, Completed("1"))
    assert born_and_claimed(agent, other)[row.task_id] == Settled(row.task_id, "completed")
