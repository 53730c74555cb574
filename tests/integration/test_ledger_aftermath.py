"""What an end sets off is written down by the same commit, by whoever ends the task, once."""

from __future__ import annotations

from typing import Any

import pytest

from chiffon.dispatch.cancel import cancel
from chiffon.dispatch.replay import replay
from chiffon.domain.states import ENDS, State
from chiffon.domain.verdicts import Completed, Failed, RetryLater
from chiffon.ledger import aftermath
from chiffon.ledger.condemn import condemn
from chiffon.ledger.effects import AFTER_END, named_after
from chiffon.ledger.follow import follow
from tests.bench import ENDING, LEASE, TTL, Bench
from tests.builders import an_error, new_task

CHAINED: dict[str, Any] = {"embed": {"chain": [{"task": "next"}]}, "root_id": "root"}


def set_off(bench: Bench) -> list[str]:
    """Whose ends somebody is to see to; each of these tasks is due at once and has a whole history."""
    rows = bench.sql(
        "SELECT task_id, parameters ->> 'task_id', status, next_ring_at <= clock_timestamp(), canvas ->> 'parent_id'"
        " FROM tasks WHERE work_type = %s ORDER BY created_at, task_id",
        AFTER_END,
    )
    for task_id, ended, status, is_due, parent in rows:
        assert (status, is_due, parent) == ("pending", True, ended)
        assert bench.history(task_id) == ["pending"]
    return [ended for _, ended, *_ in rows]


def seers(bench: Bench) -> list[str]:
    """The ids of the tasks that are to see to ends, the oldest first."""
    rows = bench.sql("SELECT task_id FROM tasks WHERE work_type = %s ORDER BY created_at", AFTER_END)
    return [seer for (seer,) in rows]


def chained(bench: Bench, **fields: Any) -> str:
    """A task after which others come."""
    return bench.born(canvas=CHAINED, **fields)


@pytest.mark.parametrize("end", [state for state in ENDING if state != State.RETRYING])
def test_a_settlement_that_nobody_caught_leaves_it_to_a_task_of_its_own(bench: Bench, end: State) -> None:
    claim = bench.claimed(chained(bench))
    bench.settle(claim, ENDING[end])
    assert set_off(bench) == [claim.task_id]


def test_an_agent_that_saw_to_it_leaves_nothing(bench: Bench) -> None:
    bench.settle(bench.claimed(chained(bench)), Completed("1"), caught=True)
    assert set_off(bench) == []


def test_work_after_which_nothing_comes_leaves_nothing(bench: Bench) -> None:
    bench.in_every_state()
    assert set_off(bench) == []


def test_what_goes_on_sets_nothing_off(bench: Bench) -> None:
    bench.settle(bench.claimed(chained(bench)), RetryLater(30.0, an_error()))
    assert set_off(bench) == []


def test_a_settlement_that_is_repeated_sets_nothing_off_again(bench: Bench) -> None:
    claim = bench.claimed(chained(bench))
    for _ in range(3):
        bench.settle(claim, Failed(an_error()))
    assert set_off(bench) == [claim.task_id]


def test_ends_by_other_hands_than_an_agents_are_seen_to(bench: Bench) -> None:
    cancelled, expired, condemned = chained(bench), chained(bench, expires_in=-1.0), chained(bench)
    lost = bench.claimed(chained(bench))
    bench.start(lost)
    cancel(bench.ledger, cancelled, ttl=TTL)
    bench.expire()
    with bench.transaction() as cursor:
        condemn(cursor, condemned, an_error(), owed=True, ttl=TTL)
    bench.lose(bench.someone)
    bench.take_over(bench.someone.incarnation, max_deaths=1)
    assert sorted(set_off(bench)) == sorted([cancelled, expired, condemned, lost.task_id])


def test_what_comes_after_a_follower_is_seen_to(bench: Bench) -> None:
    claim = bench.claimed(bench.born(request_id="r"))
    second = new_task(request_id="r", canvas=CHAINED)
    with bench.transaction() as cursor:
        follow(cursor, second, claim.task_id)
    assert set_off(bench) == []
    bench.settle(claim, Completed("1"), caught=True)
    assert set_off(bench) == [second.task_id]


def test_what_comes_after_a_follower_that_is_born_ended_is_seen_to(bench: Bench) -> None:
    first = bench.task_in(State.COMPLETED)
    second = new_task(canvas=CHAINED)
    with bench.transaction() as cursor:
        assert follow(cursor, second, first) == "completed"
    assert set_off(bench) == [second.task_id]


def test_the_end_of_a_replay_is_another_end(bench: Bench) -> None:
    claim = bench.claimed(chained(bench))
    bench.settle(claim, Failed(an_error()))
    replay(bench.ledger, claim.task_id, lease=LEASE)
    bench.settle(bench.claimed(claim.task_id), Completed("1"))
    assert set_off(bench) == [claim.task_id] * 2


def test_whoever_sees_to_an_end_reads_all_that_it_takes(bench: Bench) -> None:
    task_id = chained(bench, parameters={"input": 1}, arguments=[2], priority=4)
    bench.settle(bench.claimed(task_id), Completed('{"x": 1}'))
    (seer,) = seers(bench)
    with bench.transaction() as cursor:
        assert aftermath.read(cursor, task_id, after=seer) == aftermath.End(
            "echo", "completed", 4, [2], {"input": 1}, CHAINED, {}, {"x": 1}
        )


def test_who_sees_to_an_end_takes_no_other_for_it(bench: Bench) -> None:
    claim = bench.claimed(chained(bench))
    bench.settle(claim, Failed(an_error()))
    replay(bench.ledger, claim.task_id, lease=LEASE)
    bench.settle(bench.claimed(claim.task_id), Completed("1"))
    first, second = seers(bench)
    with bench.transaction() as cursor:
        assert aftermath.read(cursor, claim.task_id, after=first) is None
        assert aftermath.read(cursor, claim.task_id, after=second) is not None


@pytest.mark.parametrize("state", sorted(set(State) - ENDS))
def test_a_task_that_goes_on_has_no_end_to_read(bench: Bench, state: State) -> None:
    task_id = bench.task_in(state)
    with bench.transaction() as cursor:
        cursor.execute(f"SELECT {named_after('task_id', 'history_no')} FROM tasks WHERE task_id = %s", (task_id,))
        (seer,) = cursor.fetchone()
        assert aftermath.read(cursor, task_id, after=seer) is None
