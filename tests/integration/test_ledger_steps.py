"""The guard of each statement: it moves a task from its own states only, and leaves all others as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chiffon.dispatch.cancel import Cancelling, cancel
from chiffon.dispatch.replay import replay
from chiffon.domain.errors import TaskNotFound, WrongState
from chiffon.domain.states import ENDS, REPLAYABLE, STEPS, WAITING, State
from chiffon.domain.tasks import Absent, Claim, HeldElsewhere, NotDue, Settled
from chiffon.ledger import control
from chiffon.ledger.claims import mark_started, record_progress
from chiffon.ledger.condemn import condemn
from chiffon.ledger.settle import Fenced
from tests.bench import ENDING, LEASE, TTL, Bench
from tests.builders import an_error


def moved_by(bench: Bench, step: Callable[[str], object], **fields: object) -> dict[State, str]:
    """The states that a step leaves, with where it leads; every other task's row must be as it was."""
    tasks = bench.in_every_state(**fields)
    before = {state: bench.row(task_id) for state, task_id in tasks.items()}
    for task_id in tasks.values():
        step(task_id)
    after = {state: bench.row(task_id) for state, task_id in tasks.items()}
    moved = {state: str(after[state]["status"]) for state in tasks if after[state]["status"] != state}
    for state in tasks.keys() - moved.keys():
        assert after[state] == before[state], f"the step changed a task that is {state}"
    assert all(State(target) in STEPS[state] for state, target in moved.items())
    return moved


def test_a_claim_takes_pending_and_queued_tasks_only(bench: Bench) -> None:
    holder, other = bench.someone, bench.agent("other")
    assert moved_by(bench, other.claim) == dict.fromkeys((State.PENDING, State.QUEUED), State.RUNNING)
    found = {state: other.claim(task_id) for state, task_id in bench.in_every_state().items()}
    assert {state: type(fate) for state, fate in found.items()} == dict.fromkeys(ENDS, Settled) | {
        State.PENDING: Claim,
        State.QUEUED: Claim,
        State.RUNNING: HeldElsewhere,
        State.SCHEDULED: NotDue,
        State.RETRYING: NotDue,
    }
    assert found[State.RUNNING].incarnation == holder.incarnation  # type: ignore[union-attr]


def test_a_retry_can_be_claimed_when_it_is_due(bench: Bench) -> None:
    task_id = bench.task_in(State.RETRYING)
    assert isinstance(bench.someone.claim(task_id), NotDue)
    bench.pass_time(3601)
    assert isinstance(bench.someone.claim(task_id), Claim)


def test_a_task_that_the_ledger_does_not_have_is_absent(bench: Bench) -> None:
    assert bench.someone.claim("nobody") == Absent("nobody")


@pytest.mark.parametrize("target", ENDING)
def test_only_a_running_task_is_settled(bench: Bench, target: State) -> None:
    def settle(task_id: str) -> None:
        bench.settle((task_id, bench.row(task_id)["execution"]), ENDING[target])

    assert moved_by(bench, settle) == {State.RUNNING: target}


def test_nothing_is_settled_by_a_number_that_is_not_the_newest(bench: Bench) -> None:
    def settle(task_id: str) -> None:
        execution = bench.row(task_id)["execution"]
        assert bench.settle((task_id, execution + 1), ENDING[State.COMPLETED]) == Fenced()
        bench.settle((task_id, execution - 1), ENDING[State.COMPLETED])

    assert moved_by(bench, settle) == {}


def test_only_what_waits_is_cancelled_at_once(bench: Bench) -> None:
    def step(task_id: str) -> None:
        with bench.transaction() as cursor:
            control.cancel_waiting(cursor, task_id, ttl=TTL)

    assert moved_by(bench, step) == dict.fromkeys(WAITING, State.CANCELLED)


def test_only_ends_other_than_completed_are_replayed(bench: Bench) -> None:
    def step(task_id: str) -> None:
        with bench.transaction() as cursor:
            control.replay(cursor, task_id, lease=LEASE)

    assert moved_by(bench, step) == dict.fromkeys(REPLAYABLE, State.PENDING)


def test_only_what_could_be_claimed_is_condemned(bench: Bench) -> None:
    def step(task_id: str) -> None:
        with bench.transaction() as cursor:
            condemn(cursor, task_id, an_error(), owed=True, ttl=TTL)

    assert moved_by(bench, step) == dict.fromkeys((State.PENDING, State.QUEUED, State.RETRYING), State.DEAD_LETTERED)


def test_only_a_pending_task_is_queued_by_a_confirm(bench: Bench) -> None:
    assert moved_by(bench, lambda task_id: bench.confirm(task_id, bench.row(task_id)["ring_no"])) == {
        State.PENDING: State.QUEUED
    }


def test_only_scheduled_and_retrying_tasks_come_due(bench: Bench) -> None:
    tasks = bench.in_every_state()
    assert bench.due() == 0
    bench.pass_time(3601)
    assert bench.due() == 2
    assert {state: bench.status(tasks[state]) for state in (State.SCHEDULED, State.RETRYING)} == {
        State.SCHEDULED: "pending",
        State.RETRYING: "pending",
    }
    assert all(
        bench.status(task_id) == state for state, task_id in tasks.items() if state not in {"scheduled", "retrying"}
    )


def test_only_what_waits_expires(bench: Bench) -> None:
    tasks = {state: bench.task_in(state, expires_in=60.0) for state in set(State) - {State.EXPIRED}}
    assert bench.expire() == []
    bench.pass_time(61)
    assert set(bench.expire()) == {tasks[state] for state in WAITING}
    assert all(bench.status(tasks[state]) == state for state in tasks.keys() - WAITING)
    assert all(bench.status(tasks[state]) == "expired" for state in WAITING)


def test_only_running_tasks_are_taken_over(bench: Bench) -> None:
    tasks = bench.in_every_state()
    incarnation = bench.someone.incarnation
    bench.lose(bench.someone)
    assert bench.take_over(incarnation) == [tasks[State.RUNNING]]
    assert all(bench.status(task_id) == state for state, task_id in tasks.items() if state != State.RUNNING)
    assert bench.status(tasks[State.RUNNING]) == "pending"


def test_only_a_running_task_says_how_far_it_is_that_it_began_and_is_asked_to_stop(bench: Bench) -> None:
    heard = set()
    for state, task_id in bench.in_every_state().items():
        before = bench.row(task_id)
        with bench.transaction() as cursor:
            said = record_progress(cursor, task_id, before["execution"], '{"percent": 5}')
            asked = control.ask_to_stop(cursor, task_id)
            mark_started(cursor, {(task_id, before["execution"]): 0.0})
        heard.add((state, said, asked, bench.row(task_id) != before))
    assert heard == {(state, running := state == State.RUNNING, running, running) for state in State}


def test_cancel_ends_asks_or_refuses(bench: Bench) -> None:
    for state, task_id in bench.in_every_state().items():
        if state in WAITING | {State.CANCELLED}:
            assert cancel(bench.ledger, task_id, ttl=TTL) == Cancelling.ENDED
        elif state == State.RUNNING:
            assert cancel(bench.ledger, task_id, ttl=TTL) == Cancelling.ASKED
            assert cancel(bench.ledger, task_id, ttl=TTL) == Cancelling.ASKED
        else:
            with pytest.raises(WrongState, match=f"it is {state}"):
                cancel(bench.ledger, task_id, ttl=TTL)
    with pytest.raises(TaskNotFound):
        cancel(bench.ledger, "nobody", ttl=TTL)


def test_replay_rings_or_refuses(bench: Bench) -> None:
    for state, task_id in bench.in_every_state().items():
        if state in REPLAYABLE:
            assert replay(bench.ledger, task_id, lease=LEASE).task_id == task_id
        else:
            with pytest.raises(WrongState, match=f"is {state}"):
                replay(bench.ledger, task_id, lease=LEASE)
    with pytest.raises(TaskNotFound):
        replay(bench.ledger, "nobody", lease=LEASE)
