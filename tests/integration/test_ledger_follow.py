"""Two messages with one request_id: the second takes the first's end in the same commit, and never runs."""

from __future__ import annotations

from typing import Any

import pytest

from chiffon.domain.states import CELERY_STATES, ENDS, State
from chiffon.domain.tasks import NewTask, NotDue
from chiffon.domain.verdicts import Completed, RetryLater
from chiffon.ledger import control
from chiffon.ledger.condemn import condemn
from chiffon.ledger.follow import follow
from tests.bench import ENDING, TTL, Bench, listening
from tests.builders import an_error, new_task

IMMEDIATE = sorted(ENDS - {State.EXPIRED})


def follower(bench: Bench, first: str, **fields: Any) -> str:
    """A second message that asks for the same."""
    task = new_task(request_id="r", **fields)
    with bench.transaction() as cursor:
        assert follow(cursor, task, first) is not None
    return task.task_id


def test_a_follower_waits_for_the_first_without_being_rung(bench: Bench) -> None:
    second = follower(bench, bench.born(request_id="r"))
    row = bench.row(second)
    assert (row["status"], row["next_ring_at"], row["finished_at"]) == ("pending", None, None)
    assert bench.history(second) == ["pending"]
    assert bench.someone.claim(second) == NotDue(second)


@pytest.mark.parametrize("end", IMMEDIATE)
def test_it_takes_every_end_of_the_first_in_the_same_commit(bench: Bench, end: State) -> None:
    claim = bench.claimed(bench.born(request_id="r"))
    seconds = [follower(bench, claim.task_id) for _ in range(3)]
    bench.settle(claim, ENDING[end])
    first = bench.row(claim.task_id)
    for second in seconds:
        row = bench.row(second)
        assert (row["status"], row["finished_at"], row["error"]) == (end, first["finished_at"], first["error"])
        assert (row["dead_letter_owed"], row["attempts"]) == (False, 0)
        assert bench.result(second) == bench.result(claim.task_id)
        assert (bench.result(second) or ("",))[0] == CELERY_STATES[end]
        assert bench.history(second) == ["pending", end]
        assert bench.outcomes(second) == []
    commits = bench.sql("SELECT count(DISTINCT xmin::text) FROM tasks WHERE status = %s", end)
    assert commits == [(1,)]


def test_it_takes_the_end_that_the_first_has_reached_already(bench: Bench) -> None:
    for end in sorted(ENDS):
        first = bench.task_in(end)
        second = follower(bench, first)
        assert bench.status(second) == end
        assert bench.result(second) == bench.result(first)
        assert bench.history(second) == [end]


def test_it_goes_on_waiting_while_the_first_goes_on(bench: Bench) -> None:
    claim = bench.claimed(bench.born(request_id="r"))
    second = follower(bench, claim.task_id)
    bench.settle(claim, RetryLater(30.0, an_error()))
    assert bench.status(second) == "pending"
    bench.pass_time(31)
    bench.settle(bench.claimed(claim.task_id), Completed("5"))
    assert bench.result(second) == ("SUCCESS", 5)


def test_it_takes_the_end_that_anybody_gives_the_first(bench: Bench) -> None:
    cancelled, condemned, expired = (bench.born(request_id=name) for name in ("a", "b", "c"))
    seconds = [follower(bench, first) for first in (cancelled, condemned, expired)]
    with bench.transaction() as cursor:
        control.cancel_waiting(cursor, cancelled, ttl=TTL)
        condemn(cursor, condemned, an_error(), owed=True, ttl=TTL)
    bench.sql("UPDATE tasks SET expires_at = clock_timestamp() WHERE task_id = %s", expired)
    bench.expire()
    assert [bench.status(second) for second in seconds] == ["cancelled", "dead_lettered", "expired"]
    assert [bench.row(second)["dead_letter_owed"] for second in seconds] == [False] * 3


def test_it_takes_the_end_that_the_death_of_agents_gives_the_first(bench: Bench) -> None:
    claim = bench.claimed(bench.born(request_id="r"))
    bench.start(claim)
    second = follower(bench, claim.task_id)
    bench.lose(bench.someone)
    bench.take_over(bench.someone.incarnation, max_deaths=1)
    assert bench.status(second) == "dead_lettered"


def test_a_follower_may_be_cancelled_alone(bench: Bench) -> None:
    claim = bench.claimed(bench.born(request_id="r"))
    second = follower(bench, claim.task_id)
    with bench.transaction() as cursor:
        assert control.cancel_waiting(cursor, second, ttl=TTL)
    bench.settle(claim, Completed("1"))
    assert [bench.status(task_id) for task_id in (claim.task_id, second)] == ["completed", "cancelled"]
    assert (bench.result(second) or ("",))[0] == "REVOKED"


def test_a_task_id_that_is_taken_follows_nobody(bench: Bench) -> None:
    first, other = bench.born(request_id="r"), bench.born()
    with bench.transaction() as cursor:
        assert follow(cursor, new_task(task_id=other), first) is None
    assert bench.row(other)["follows"] is None


def test_what_a_follower_was_asked_for_is_kept(bench: Bench) -> None:
    first = bench.born(request_id="r")
    task: NewTask = new_task(
        request_id="r", parameters={"input": 7}, priority=5, canvas={"root_id": "x"}, origin="message"
    )
    with bench.transaction() as cursor:
        follow(cursor, task, first)
    row = bench.row(task.task_id)
    assert (row["parameters"], row["priority"], row["canvas"], row["origin"]) == (
        {"input": 7},
        5,
        {"root_id": "x"},
        "message",
    )
    assert row["follows"] == first


def test_whoever_waits_for_a_follower_is_told_of_its_end(bench: Bench) -> None:
    claim = bench.claimed(bench.born(request_id="r"))
    second = follower(bench, claim.task_id)
    with listening(bench) as heard:
        bench.settle(claim, Completed("1"))
        assert sorted(heard()) == sorted([claim.task_id, second])


def test_whoever_waits_for_a_follower_that_is_born_ended_is_told_too(bench: Bench) -> None:
    first = bench.task_in(State.COMPLETED)
    with listening(bench) as heard:
        second = follower(bench, first)
        assert heard() == [second]
