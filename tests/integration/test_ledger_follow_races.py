"""A message that comes to share an end just while that end is being written: neither misses the other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chiffon.domain.states import State
from chiffon.domain.tasks import Claim
from chiffon.domain.verdicts import Completed, Failed, Verdict
from chiffon.ledger import results
from chiffon.ledger.condemn import condemn
from chiffon.ledger.control import cancel_waiting
from chiffon.ledger.follow import follow
from chiffon.ledger.settle import Recorded, Settlement, settle
from tests.bench import TTL, Bench
from tests.builders import an_error, new_task
from tests.racing import Thread, until

ENDS: dict[str, tuple[Verdict, str, str]] = {
    "completed": (Completed('{"output": 1}'), "completed", "SUCCESS"),
    "failed": (Failed(an_error()), "failed", "FAILURE"),
}


def waits(bench: Bench) -> bool:
    """Whether exactly one session waits for a lock."""
    statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bench.sql(statement) == [(1,)]


def followed_while(bench: Bench, first: str, end: Callable[[], object]) -> tuple[str, object]:
    """A second task's id, which is written down but not committed when the first's end begins; what the end said."""
    second = new_task(request_id=str(bench.row(first)["request_id"]))
    with bench.transaction() as cursor:
        assert follow(cursor, second, first) == "pending"
        ending = Thread(end)
        until(lambda: waits(bench))
    return second.task_id, ending.answer()


def assert_they_share_an_end(bench: Bench, first: str, second: str, status: str, word: str) -> None:
    """The tasks have one end, and one result for whoever asks Celery's way."""
    ends = [bench.row(task_id) for task_id in (first, second)]
    assert [row["status"] for row in ends] == [status] * 2
    assert ends[0]["finished_at"] == ends[1]["finished_at"]
    assert ends[0]["error"] == ends[1]["error"]
    with bench.transaction() as cursor:
        found = [results.fetch(cursor, task_id) for task_id in (first, second)]
    assert found[0] is not None
    assert found[1] is not None
    assert [one.status for one in found if one] == [word] * 2
    assert found[0].result == found[1].result
    assert bench.result(second) is not None
    assert bench.outcomes(second) == []


@pytest.mark.parametrize("how", ENDS)
def test_a_settlement_that_waited_for_a_follower_gives_it_the_end(bench: Bench, how: str) -> None:
    verdict, status, word = ENDS[how]
    claim = bench.claimed()
    second, answer = followed_while(bench, claim.task_id, lambda: bench.settle(claim, verdict))
    assert isinstance(answer, Recorded)
    assert_they_share_an_end(bench, claim.task_id, second, status, word)
    assert bench.history(second) == ["pending", status]


def test_a_cancel_that_waited_for_a_follower_gives_it_the_end(bench: Bench) -> None:
    first = bench.task_in(State.QUEUED)

    def end() -> bool:
        with bench.transaction() as cursor:
            return cancel_waiting(cursor, first, ttl=TTL)

    second, answer = followed_while(bench, first, end)
    assert answer is True
    assert_they_share_an_end(bench, first, second, "cancelled", "REVOKED")


def test_a_condemnation_that_waited_for_a_follower_gives_it_the_end(bench: Bench) -> None:
    first = bench.task_in(State.QUEUED)

    def end() -> bool:
        with bench.transaction() as cursor:
            return condemn(cursor, first, an_error("nobody can"), owed=True, ttl=TTL)

    second, answer = followed_while(bench, first, end)
    assert answer is True
    assert_they_share_an_end(bench, first, second, "dead_lettered", "FAILURE")
    assert [bench.row(task_id)["dead_letter_owed"] for task_id in (first, second)] == [True, False]


def test_what_gets_a_follower_while_it_is_taken_over_ends_after_the_commit_and_its_follower_with_it(
    bench: Bench,
) -> None:
    bench.agent("living")
    dying = bench.agent("dying")
    claim, second = bench.claimed(bench.born(request_id="r"), by=dying), new_task(request_id="r")
    bench.start(claim)
    bench.lose(dying)
    with bench.transaction() as cursor:
        assert follow(cursor, second, claim.task_id) == "pending"
        assert bench.take_over(dying.incarnation, max_deaths=1) == [], "whoever holds it is passed by, and nobody waits"
    assert bench.take_over(dying.incarnation, max_deaths=1) == [claim.task_id]
    assert bench.outcomes(claim.task_id) == ["agent_lost"]
    assert_they_share_an_end(bench, claim.task_id, second.task_id, "dead_lettered", "FAILURE")


def test_what_expires_while_it_gets_a_follower_ends_after_the_commit_and_its_follower_with_it(bench: Bench) -> None:
    first, second = new_task(expires_in=-1.0, request_id="r"), new_task(request_id="r")
    bench.accept(first)
    with bench.transaction() as cursor:
        assert follow(cursor, second, first.task_id) == "pending"
        assert bench.expire() == [], "whoever holds it is passed by, and nobody waits"
    assert bench.expire() == [first.task_id]
    assert_they_share_an_end(bench, first.task_id, second.task_id, "expired", "REVOKED")


@pytest.mark.parametrize("how", ENDS)
def test_a_follower_that_waited_for_the_end_is_born_with_it_and_with_its_result(bench: Bench, how: str) -> None:
    verdict, status, word = ENDS[how]
    claim: Claim = bench.claimed()
    second = new_task()

    def come() -> str | None:
        with bench.transaction() as cursor:
            return follow(cursor, second, claim.task_id)

    with bench.transaction() as cursor:
        recorded = settle(cursor, [Settlement(claim.task_id, claim.execution, verdict)], ttl=TTL, max_crashes=3)
        assert [type(one) for one in recorded.values()] == [Recorded]
        coming = Thread(come)
        until(lambda: waits(bench))
    assert coming.answer() == status
    assert_they_share_an_end(bench, claim.task_id, second.task_id, status, word)
    assert bench.history(second.task_id) == [status]
