"""Accepting: a task exists from one commit on, and each id and key has one owner."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import lists, sampled_from, tuples

from chiffon.dispatch.submit import submit_all
from chiffon.domain.states import State
from chiffon.domain.tasks import Accepted, Duplicate, IdTaken, KeyReused, NewTask
from chiffon.ledger.accept import accept
from chiffon.ledger.queries import task as read_task
from tests.bench import ENDING, LEASE, Bench
from tests.builders import new_task

Dispatch = tuple[str, str, int]
"""A task id of the caller's own or none, a key, and what the payload is."""

DISPATCHES = tuples(sampled_from(["", "a", "b"]), sampled_from("xy"), sampled_from([1, 2]))


def other_payload(task: NewTask, **fields: Any) -> NewTask:
    """The same ids, and something else to do."""
    said = new_task(parameters={"input": "something else"})
    return replace(task, parameters=said.parameters, fingerprint=said.fingerprint, **fields)


def another_id(task: NewTask) -> NewTask:
    """The same key and payload under an id of its own, as a repeated dispatch has it."""
    return replace(task, task_id=new_task().task_id)


def another_key(task: NewTask) -> NewTask:
    """The same id and payload under another key."""
    return replace(task, request_id=new_task().request_id)


def test_what_is_accepted_is_there_with_everything_that_was_said(bench: Bench) -> None:
    task = new_task(
        parameters={"input": ["grüß 👋", {"deep": [1.5, None, True]}]},
        labels={"team": "a/b"},
        priority=5,
        queue="work_queue.gpu",
        timeout=2.5,
        soft_timeout=1.5,
        max_retries=7,
        arguments=[1],
        canvas={"root_id": "r"},
        origin="message",
    )
    assert bench.accept(task) == [Accepted(task.task_id)]
    row = bench.row(task.task_id)
    for name in ("request_id", "trace_id", "work_type", "parameters", "labels", "priority", "queue", "timeout"):
        assert row[name] == getattr(task, name)
    for name in ("soft_timeout", "max_retries", "arguments", "canvas", "origin", "fingerprint"):
        assert row[name] == getattr(task, name)
    assert (row["status"], row["ring_no"], row["execution"], row["attempts"]) == ("pending", 1, 0, 0)
    assert bench.history(task.task_id) == ["pending"]


def test_the_first_ring_is_leased_by_the_same_commit(bench: Bench) -> None:
    _, rung = submit_all(bench.ledger, [task := new_task()], lease=LEASE)
    assert [(ring.task_id, ring.ring_no, ring.parameters) for ring in rung] == [(task.task_id, 1, task.parameters)]
    ((wait,),) = bench.sql("SELECT extract(epoch FROM next_ring_at - created_at)::float8 FROM tasks")
    assert wait == pytest.approx(LEASE, abs=0.5)


@pytest.mark.parametrize("state", State)
def test_a_repeated_request_id_is_a_duplicate_while_its_task_is_in_any_state(bench: Bench, state: State) -> None:
    task_id = bench.task_in(state, request_id="r")
    again = new_task(request_id="r")
    assert bench.accept(again) == [Duplicate(task_id)]
    assert bench.sql("SELECT count(*) FROM tasks") == [(1,)]


@pytest.mark.parametrize("state", State)
def test_a_repeated_task_id_is_a_duplicate_while_its_task_is_in_any_state(bench: Bench, state: State) -> None:
    task_id = bench.task_in(state)
    assert bench.accept(new_task(task_id=task_id)) == [Duplicate(task_id)]
    assert bench.sql("SELECT count(*) FROM tasks") == [(1,)]


def test_a_key_with_another_payload_is_reused_and_nothing_is_written(bench: Bench) -> None:
    task = new_task()
    bench.accept(task)
    assert bench.accept(other_payload(another_id(task))) == [KeyReused(task.task_id)]
    assert bench.accept(another_id(task)) == [Duplicate(task.task_id)]


def test_a_task_id_with_another_payload_is_taken_and_takes_no_key(bench: Bench) -> None:
    task = new_task()
    bench.accept(task)
    other = other_payload(another_key(task))
    assert bench.accept(other) == [IdTaken(task.task_id)]
    assert bench.sql("SELECT count(*) FROM request_keys") == [(1,)]
    assert bench.accept(replace(other, task_id=new_task().task_id)) != [KeyReused(task.task_id)]


def test_work_without_a_key_never_takes_one(bench: Bench) -> None:
    one, other = (new_task(request_id="r", keyed=False) for _ in range(2))
    assert bench.accept(one) == [Accepted(one.task_id)]
    assert bench.accept(other) == [Accepted(other.task_id)]
    assert bench.sql("SELECT count(*) FROM request_keys") == [(0,)]


@pytest.mark.parametrize("end", [*(state for state in ENDING if state != State.RETRYING), State.EXPIRED])
def test_the_key_of_an_ended_task_runs_out_some_time_after_the_end(bench: Bench, end: State) -> None:
    first = bench.task_in(end, request_id="r")
    bench.pass_time(299)
    assert bench.accept(new_task(request_id="r")) == [Duplicate(first)]
    bench.pass_time(2)
    second = new_task(request_id="r")
    assert bench.accept(second) == [Accepted(second.task_id)]
    assert bench.accept(new_task(request_id="r")) == [Duplicate(second.task_id)]


def test_the_key_of_a_task_that_goes_on_never_runs_out(bench: Bench) -> None:
    tasks = {state: bench.task_in(state, request_id=state) for state in State if state not in ENDING}
    del tasks[State.EXPIRED]
    bench.pass_time(1_000_000)
    for state, task_id in tasks.items():
        assert bench.accept(new_task(request_id=state)) == [Duplicate(task_id)]


def test_an_expired_key_may_be_taken_with_another_payload(bench: Bench) -> None:
    bench.task_in(State.COMPLETED, request_id="r")
    bench.pass_time(301)
    other = other_payload(new_task(request_id="r"))
    assert bench.accept(other) == [Accepted(other.task_id)]


def test_work_whose_time_is_later_is_scheduled_and_not_rung(bench: Bench) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    by_moment, by_delay = new_task(run_at=later), new_task(delay=3600.0)
    fates, rung = submit_all(bench.ledger, [by_moment, by_delay], lease=LEASE)
    assert fates == [Accepted(by_moment.task_id), Accepted(by_delay.task_id)]
    assert rung == []
    assert [bench.status(task.task_id) for task in (by_moment, by_delay)] == ["scheduled", "scheduled"]
    assert bench.row(by_moment.task_id)["run_at"] == later


def test_work_whose_time_has_come_is_pending_and_rung(bench: Bench) -> None:
    past = new_task(run_at=datetime.now(UTC) - timedelta(hours=1))
    now = new_task(delay=0.0)
    _, rung = submit_all(bench.ledger, [past, now], lease=LEASE)
    assert {ring.task_id for ring in rung} == {past.task_id, now.task_id}
    assert [bench.row(task.task_id)["run_at"] for task in (past, now)] == [None, None]


def test_an_expiry_is_a_moment_or_counts_from_the_acceptance(bench: Bench) -> None:
    moment = datetime.now(UTC) + timedelta(hours=1)
    by_moment, by_time = new_task(expires_at=moment), new_task(expires_in=60.0)
    bench.accept(by_moment, by_time)
    assert bench.row(by_moment.task_id)["expires_at"] == moment
    row = bench.row(by_time.task_id)
    assert row["expires_at"] - row["created_at"] == pytest.approx(timedelta(seconds=60), abs=timedelta(seconds=1))


@pytest.fixture(params=[True, False])
def fresh(request: pytest.FixtureRequest) -> bool:
    """Whether ids are made up just now, or chosen by the caller: the former are written down in one statement."""
    return bool(request.param)


def test_a_batch_is_answered_in_the_order_it_was_sent(bench: Bench, fresh: bool) -> None:
    known, used = new_task(fresh=fresh), new_task(fresh=fresh)
    bench.accept(known, used)
    batch = [
        new_task(fresh=fresh),
        another_id(known),
        new_task(fresh=fresh),
        other_payload(another_id(used)),
        other_payload(another_key(used)),
    ]
    fates, rung = submit_all(bench.ledger, batch, lease=LEASE)
    assert fates == [
        Accepted(batch[0].task_id),
        Duplicate(known.task_id),
        Accepted(batch[2].task_id),
        KeyReused(used.task_id),
        IdTaken(used.task_id),
    ]
    assert [ring.task_id for ring in rung] == [batch[0].task_id, batch[2].task_id]


def test_twins_in_a_batch_are_one_task(bench: Bench, fresh: bool) -> None:
    task = new_task(fresh=fresh)
    twins = [task, another_id(task), another_key(task), task]
    fates, rung = submit_all(bench.ledger, twins, lease=LEASE)
    assert fates == [Accepted(task.task_id), *[Duplicate(task.task_id)] * 3]
    assert len(rung) == 1
    assert bench.sql("SELECT count(*) FROM tasks") == [(1,)]


def test_twins_with_another_payload_are_refused(bench: Bench, fresh: bool) -> None:
    task = new_task(fresh=fresh)
    batch = [task, other_payload(another_id(task)), other_payload(another_key(task))]
    fates, _ = submit_all(bench.ledger, batch, lease=LEASE)
    assert fates == [Accepted(task.task_id), KeyReused(task.task_id), IdTaken(task.task_id)]


def test_the_twin_of_a_refused_task_is_refused_with_it(bench: Bench, fresh: bool) -> None:
    holder = new_task(fresh=fresh)
    bench.accept(holder)
    reused = other_payload(another_id(holder))
    taken = other_payload(another_key(holder))
    fates, _ = submit_all(bench.ledger, [reused, another_id(reused), taken, another_key(taken)], lease=LEASE)
    assert fates == [*[KeyReused(holder.task_id)] * 2, *[IdTaken(holder.task_id)] * 2]


def answers(bench: Bench, dispatches: list[list[Dispatch]]) -> list[Any]:
    """What each of some batches is told, and what is rung; ids are unlike those of any other call."""
    run, told, rung, number = uuid.uuid4().hex, [], [], 0
    for batch in dispatches:
        tasks = []
        for task_id, request_id, payload in batch:
            number += 1
            ids = {"task_id": f"{run}{task_id or number}", "request_id": f"{run}{request_id}"}
            tasks.append(new_task(**ids, parameters={"input": payload}, fresh=not task_id))
        fates, rings = submit_all(bench.ledger, tasks, lease=LEASE)
        told += [repr(fate).replace(run, "") for fate in fates]
        rung += [ring.task_id.replace(run, "") for ring in rings]
    return [told, rung]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=lists(DISPATCHES, max_size=3), batch=lists(DISPATCHES, max_size=6))
def test_each_of_a_batch_is_answered_as_it_would_be_by_itself(
    bench: Bench, before: list[Dispatch], batch: list[Dispatch]
) -> None:
    one_by_one = [[dispatch] for dispatch in batch]
    first = [[dispatch] for dispatch in before]
    assert answers(bench, [*first, batch]) == answers(bench, [*first, *one_by_one])


def test_a_thousand_are_one_commit(bench: Bench, fresh: bool) -> None:
    batch = [new_task(parameters={"input": number}, fresh=fresh) for number in range(1000)]
    fates, rung = submit_all(bench.ledger, batch, lease=LEASE)
    assert fates == [Accepted(task.task_id) for task in batch]
    assert len(rung) == 1000
    assert bench.sql("SELECT count(DISTINCT xmin::text), count(*) FROM tasks") == [(1, 1000)]


def test_a_clock_that_ticks_between_two_looks_spoils_no_task(bench: Bench) -> None:
    """The moment for which a task is scheduled may come while its row is being written."""
    bench.sql("CREATE SEQUENCE ticks")
    bench.sql(
        "CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
        "$$ SELECT timestamptz '2030-01-01 00:00:00+00' + nextval('public.ticks') * interval '1 second' $$"
    )
    for delay in range(1, 12):
        task = new_task(delay=float(delay))
        with bench.transaction() as cursor:
            cursor.execute("SET LOCAL search_path = public, pg_catalog")
            cursor.execute("SELECT setval('ticks', 1)")
            accept(cursor, [task], lease=LEASE)
        with bench.transaction() as cursor:
            view = read_task(cursor, task.task_id)
        assert view is not None
        assert (view.status, view.run_at is None) in {("scheduled", False), ("pending", True)}
