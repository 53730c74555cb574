"""The state machine is the table of the design, and nothing beside it."""

from __future__ import annotations

import pytest

from chiffon.domain.states import BIRTHS, CELERY_STATES, ENDS, REPLAYABLE, STEPS, WAITING, State, may_step

DESIGN = {
    "scheduled": "pending cancelled expired",
    "pending": "queued running cancelled expired dead_lettered completed failed timed_out",
    "queued": "running pending cancelled expired dead_lettered completed failed timed_out",
    "running": "completed failed timed_out cancelled dead_lettered retrying pending running",
    "retrying": "pending running cancelled expired dead_lettered",
    "completed": "",
    "failed": "pending",
    "cancelled": "pending",
    "timed_out": "pending",
    "expired": "pending",
    "dead_lettered": "pending",
}
"""Section 4 of the design, typed again: the arrows from each state. `any end (copied)` is written out."""


def test_the_table_has_exactly_the_arrows_of_the_design() -> None:
    assert {str(origin): set(map(str, targets)) for origin, targets in STEPS.items()} == {
        origin: set(targets.split()) for origin, targets in DESIGN.items()
    }


@pytest.mark.parametrize("origin", State)
def test_only_the_arrows_of_the_table_may_be_taken(origin: State) -> None:
    assert {target for target in State if may_step(origin, target)} == STEPS[origin]


def test_a_completed_task_goes_nowhere() -> None:
    assert not any(may_step(State.COMPLETED, target) for target in State)


def test_the_other_ends_lead_back_to_pending_alone_by_a_replay() -> None:
    assert ENDS - {State.COMPLETED} == REPLAYABLE
    assert all(STEPS[end] == {State.PENDING} for end in REPLAYABLE)


def test_every_state_either_waits_or_runs_or_has_ended() -> None:
    assert WAITING | ENDS | {State.RUNNING} == set(State)
    assert not WAITING & ENDS
    assert State.RUNNING not in WAITING | ENDS


def test_whatever_waits_can_be_cancelled_and_can_expire() -> None:
    assert all(may_step(waiting, State.CANCELLED) and may_step(waiting, State.EXPIRED) for waiting in WAITING)


def test_running_work_does_not_expire() -> None:
    assert not may_step(State.RUNNING, State.EXPIRED)


def test_work_whose_time_has_not_come_does_not_run() -> None:
    assert not may_step(State.SCHEDULED, State.RUNNING)
    assert not may_step(State.SCHEDULED, State.QUEUED)


def test_every_state_can_be_reached_from_a_birth_and_can_end() -> None:
    assert _reachable(BIRTHS) == set(State)
    assert all(_reachable({state}) & ENDS for state in State)


def test_a_task_is_born_accepted_claimed_or_ended_and_never_queued_or_retrying() -> None:
    assert {State.QUEUED, State.RETRYING} == set(State) - BIRTHS


def test_celery_has_a_word_for_every_state() -> None:
    assert {str(state): word for state, word in CELERY_STATES.items()} == {
        "scheduled": "PENDING",
        "pending": "PENDING",
        "queued": "PENDING",
        "running": "STARTED",
        "retrying": "RETRY",
        "completed": "SUCCESS",
        "failed": "FAILURE",
        "timed_out": "FAILURE",
        "dead_lettered": "FAILURE",
        "cancelled": "REVOKED",
        "expired": "REVOKED",
    }
    assert set(CELERY_STATES) == set(State)


def test_the_tables_cannot_be_changed_by_their_readers() -> None:
    with pytest.raises(TypeError):
        STEPS[State.COMPLETED] = frozenset({State.PENDING})  # type: ignore[index]
    with pytest.raises(TypeError):
        CELERY_STATES[State.COMPLETED] = "PENDING"  # type: ignore[index]


def _reachable(start: set[State] | frozenset[State]) -> set[State]:
    found: set[State] = set()
    todo = set(start)
    while todo:
        found |= todo
        todo = {target for state in todo for target in STEPS[state]} - found
    return found
