"""Settling: result, end, log and key in one commit, by the execution that holds the task and no other."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chiffon.domain.states import CELERY_STATES, ENDS, State
from chiffon.domain.verdicts import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    GivenBack,
    Replaced,
    RetryLater,
    TimedOut,
    Verdict,
)
from chiffon.ledger import control
from chiffon.ledger.settle import Fenced, Recorded, Settlement, clear_debts, settle
from tests.bench import ENDING, TTL, Bench, listening
from tests.builders import an_error

CRASH = Crashed(an_error("killed", "WorkerLostError"))
GIVE_BACK = GivenBack(an_error("the agent is ending"), started=True)
WITHDRAWAL = GivenBack(an_error("never began"), started=False)
RETRY = RetryLater(30.0, an_error())


def ask_to_stop(bench: Bench, task_id: str) -> None:
    """Want a running task cancelled."""
    with bench.transaction() as cursor:
        assert control.ask_to_stop(cursor, task_id)


def error_of(bench: Bench, task_id: str) -> Any:
    """The message of a task's error."""
    error = bench.row(task_id)["error"]
    return error and error["message"]


@pytest.mark.parametrize("end", [state for state in ENDING if state != State.RETRYING])
def test_an_end_is_written_down_everywhere_at_once(bench: Bench, end: State) -> None:
    claim = bench.claimed()
    bench.start(claim)
    answer = bench.settle(claim, ENDING[end], ran_for=1.0)
    owed = end in {State.FAILED, State.DEAD_LETTERED}
    assert answer == Recorded(end, owes_dead_letter=owed, fresh=True)
    row = bench.row(claim.task_id)
    assert (row["status"], row["incarnation"], row["claim_token"], row["dead_letter_owed"]) == (end, None, None, owed)
    assert row["finished_at"] >= row["started_at"]
    assert bench.history(claim.task_id) == ["pending", "running", end]
    assert bench.outcomes(claim.task_id) == [end]
    word, result = bench.result(claim.task_id) or ("", None)
    assert word == CELERY_STATES[end]
    assert (
        result == {"output": 1} if end == State.COMPLETED else result["exc_message"] == [error_of(bench, claim.task_id)]
    )
    ((key,),) = bench.sql("SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM request_keys")
    assert key == pytest.approx(TTL, abs=5)


def test_a_retry_waits_for_its_time(bench: Bench) -> None:
    claim = bench.claimed()
    assert bench.settle(claim, RETRY) == Recorded("retrying", owes_dead_letter=False, fresh=True)
    row = bench.row(claim.task_id)
    assert (row["retries"], row["attempts"], row["crashes"], row["give_backs"]) == (1, 1, 0, 0)
    assert (row["finished_at"], row["next_ring_at"], row["error"]["message"]) == (None, None, "it broke")
    ((wait,),) = bench.sql("SELECT extract(epoch FROM run_at - clock_timestamp())::float8 FROM tasks")
    assert wait == pytest.approx(30, abs=2)
    assert bench.outcomes(claim.task_id) == ["retried"]
    assert bench.sql("SELECT expires_at FROM request_keys") == [(None,)]
    assert bench.result(claim.task_id) is None


@pytest.mark.parametrize("after", [1e12, math.inf, math.nan])
def test_no_wait_is_so_long_that_its_end_cannot_be_read(bench: Bench, after: float) -> None:
    for verdict in (RetryLater(after, an_error()), GivenBack(an_error(), started=True, after=after)):
        claim = bench.claimed()
        bench.settle(claim, verdict)
        row = bench.row(claim.task_id)
        assert datetime.now(UTC) + timedelta(days=3000) < (row["run_at"] or row["next_ring_at"])


def test_each_run_after_a_retry_has_a_number_of_its_own(bench: Bench) -> None:
    claim = bench.claimed()
    for number in range(1, 4):
        assert (claim.execution, claim.attempts, claim.retries) == (number, number, number - 1)
        bench.settle(claim, RETRY)
        bench.pass_time(31)
        claim = bench.claimed(claim.task_id)
    bench.settle(claim, Completed("1"))
    assert bench.outcomes(claim.task_id) == ["retried"] * 3 + ["completed"]
    assert bench.row(claim.task_id)["error"] is None


def test_an_old_execution_cannot_settle(bench: Bench) -> None:
    old = bench.claimed()
    bench.settle(old, GIVE_BACK)
    new = bench.claimed(old.task_id)
    bench.settle(old, Completed('"stale"'))
    assert bench.status(old.task_id) == "running"
    assert bench.settle(new, Completed('"fresh"')) == Recorded("completed", owes_dead_letter=False, fresh=True)
    assert bench.result(old.task_id) == ("SUCCESS", "fresh")
    bench.settle(old, Completed('"stale"'))
    assert bench.result(old.task_id) == ("SUCCESS", "fresh")


def test_an_execution_that_was_taken_over_is_told_so(bench: Bench) -> None:
    old = bench.claimed()
    bench.lose(bench.someone)
    bench.take_over(bench.someone.incarnation)
    assert bench.settle(old, Completed("1")) == Fenced()
    new = bench.claimed(old.task_id, by=bench.agent("successor"))
    assert bench.settle(old, Completed("1")) == Fenced()
    bench.settle(new, Completed("2"))
    assert bench.settle(old, Completed("1")) == Fenced()
    assert bench.outcomes(old.task_id) == ["agent_lost", "completed"]


def test_a_number_from_the_future_settles_nothing(bench: Bench) -> None:
    claim = bench.claimed()
    assert bench.settle((claim.task_id, 2), Completed("1")) == Fenced()
    assert bench.settle(("nobody", 1), Completed("1")) == Fenced()


@pytest.mark.parametrize("verdict", [*ENDING.values(), CRASH, GIVE_BACK, WITHDRAWAL], ids=lambda v: type(v).__name__)
def test_a_settlement_whose_answer_was_lost_is_a_success_the_second_time(bench: Bench, verdict: Verdict) -> None:
    claim = bench.claimed()
    first = bench.settle(claim, verdict)
    before = bench.row(claim.task_id)
    again = bench.settle(claim, verdict)
    assert isinstance(first, Recorded)
    assert again == first._replace(fresh=False)
    assert bench.row(claim.task_id) == before


def test_many_are_settled_in_one_statement(bench: Bench) -> None:
    held = [bench.claimed() for _ in range(len(ENDING) + 1)]
    settlements = [Settlement(c.task_id, c.execution, v) for c, v in zip(held, ENDING.values(), strict=False)]
    settlements.append(Settlement(held[-1].task_id, 9, Completed("1")))
    with bench.transaction() as cursor:
        found = settle(cursor, settlements, ttl=TTL, max_crashes=3)
    assert [found[c.task_id, 1].status for c in held[:-1]] == list(ENDING)  # type: ignore[union-attr]
    assert found[held[-1].task_id, 9] == Fenced()


def test_a_cancel_that_was_asked_for_wins_over_every_way_back_to_work(bench: Bench) -> None:
    for verdict in (RETRY, GIVE_BACK, WITHDRAWAL, CRASH, Replaced()):
        claim = bench.claimed()
        ask_to_stop(bench, claim.task_id)
        assert bench.settle(claim, verdict) == Recorded("cancelled", owes_dead_letter=False, fresh=True)
        state, error = bench.result(claim.task_id) or ("", {})
        assert (state, bool(error["exc_type"])) == ("REVOKED", True), verdict


def test_a_result_that_is_there_wins_over_a_cancel(bench: Bench) -> None:
    claim = bench.claimed()
    ask_to_stop(bench, claim.task_id)
    bench.settle(claim, Completed("7"))
    assert bench.result(claim.task_id) == ("SUCCESS", 7)


def test_the_last_crash_that_is_allowed_is_the_end(bench: Bench) -> None:
    task_id = bench.born()
    for number in (1, 2):
        assert bench.settle(bench.claimed(task_id), CRASH).status == "pending"  # type: ignore[union-attr]
        assert bench.row(task_id)["crashes"] == number
    assert bench.settle(bench.claimed(task_id), CRASH) == Recorded("dead_lettered", owes_dead_letter=True, fresh=True)
    assert bench.outcomes(task_id) == ["crashed"] * 3
    assert bench.row(task_id)["error"]["type"] == "WorkerLostError"


def test_crashes_retries_and_returns_are_counted_apart(bench: Bench) -> None:
    task_id = bench.born()
    for verdict in (CRASH, RETRY, GIVE_BACK, RETRY, GIVE_BACK, CRASH):
        bench.settle(bench.claimed(task_id), verdict)
        bench.pass_time(31)
    row = bench.row(task_id)
    assert (row["crashes"], row["retries"], row["give_backs"], row["agent_deaths"], row["attempts"]) == (2, 2, 2, 0, 6)


def test_a_claim_that_never_began_is_struck_and_not_counted(bench: Bench) -> None:
    claim = bench.claimed()
    bench.settle(claim, WITHDRAWAL)
    assert bench.outcomes(claim.task_id) == []
    assert bench.row(claim.task_id)["attempts"] == 0
    again = bench.claimed(claim.task_id)
    assert (again.execution, again.attempts) == (2, 1)
    assert bench.history(claim.task_id) == ["pending", "running", "pending", "running"]


def test_what_is_given_back_can_wait_a_while(bench: Bench) -> None:
    claim = bench.claimed()
    bench.settle(claim, GivenBack(an_error(), started=False, after=20.0))
    ((wait,),) = bench.sql("SELECT extract(epoch FROM next_ring_at - clock_timestamp())::float8 FROM tasks")
    assert wait == pytest.approx(20, abs=2)


def test_a_failure_whose_work_type_opts_out_owes_no_dead_letter(bench: Bench) -> None:
    claim = bench.claimed()
    answer = bench.settle(claim, Failed(an_error()), dead_letter=False)
    assert answer == Recorded("failed", owes_dead_letter=False, fresh=True)


def test_a_debt_is_cleared_once_the_letter_is_there(bench: Bench) -> None:
    claim = bench.claimed()
    bench.settle(claim, Failed(an_error()))
    with bench.transaction() as cursor:
        clear_debts(cursor, [(claim.task_id, claim.execution)])
    assert not bench.row(claim.task_id)["dead_letter_owed"]
    assert bench.settle(claim, Failed(an_error())) == Recorded("failed", owes_dead_letter=False, fresh=False)


def test_what_a_replayed_task_owes_is_not_cleared_by_the_letter_of_its_earlier_run(bench: Bench) -> None:
    first = bench.claimed()
    bench.settle(first, Failed(an_error()))
    with bench.transaction() as cursor:
        assert control.replay(cursor, first.task_id, lease=5)
    second = bench.claimed(first.task_id)
    bench.settle(second, Failed(an_error()))
    with bench.transaction() as cursor:
        clear_debts(cursor, [(first.task_id, first.execution)])
    assert bench.row(first.task_id)["dead_letter_owed"]
    with bench.transaction() as cursor:
        clear_debts(cursor, [(second.task_id, second.execution)])
    assert not bench.row(first.task_id)["dead_letter_owed"]


def test_a_run_whose_start_was_not_marked_has_started_when_it_says(bench: Bench) -> None:
    claim = bench.claimed()
    bench.pass_time(10)
    bench.settle(claim, Completed("1"), ran_for=4.0)
    row = bench.row(claim.task_id)
    assert (row["finished_at"] - row["started_at"]).total_seconds() == pytest.approx(4, abs=0.5)
    assert bench.sql("SELECT started_at FROM executions") == [(row["started_at"],)]


def test_what_celery_keeps_beside_a_result_is_kept(bench: Bench) -> None:
    claim = bench.claimed()
    bench.settle(claim, Completed("1"), children='[[["child", null], null]]')
    assert bench.sql("SELECT children, meta FROM results") == [([[["child", None], None]], None)]


def test_an_exception_is_kept_so_that_celerys_clients_can_build_it_again(bench: Bench) -> None:
    claim = bench.claimed()
    error = an_error("it broke", "Odd", module="shop", arguments=("a", 1), traceback="Traceback ...")
    bench.settle(claim, Failed(error))
    told = {"exc_type": "Odd", "exc_module": "shop", "exc_message": ["a", 1]}
    assert bench.result(claim.task_id) == ("FAILURE", told)
    assert bench.sql("SELECT traceback FROM results") == [("Traceback ...",)]


def test_the_error_of_an_end_is_the_reason_for_it(bench: Bench) -> None:
    for verdict in (TimedOut(an_error("too slow")), Cancelled(an_error("nobody wants it"))):
        claim = bench.claimed()
        bench.settle(claim, verdict)
        assert bench.row(claim.task_id)["error"] == {
            "type": "ValueError",
            "module": "builtins",
            "message": verdict.error.message,
        }


@pytest.mark.parametrize("end", sorted(ENDS - {State.EXPIRED}))
def test_a_waiter_is_told_of_every_end_at_the_commit(bench: Bench, end: State) -> None:
    claim = bench.claimed()
    with listening(bench) as heard:
        bench.settle(claim, ENDING[end])
        assert heard() == [claim.task_id]
        other = bench.claimed()
        with bench.transaction() as cursor:
            settle(cursor, [Settlement(other.task_id, 1, ENDING[end])], ttl=TTL, max_crashes=3)
            assert heard() == []
        assert heard() == [other.task_id]


def test_nobody_is_told_of_what_goes_on(bench: Bench) -> None:
    with listening(bench) as heard:
        for verdict in (RETRY, GIVE_BACK, CRASH):
            bench.settle(bench.claimed(), verdict)
        assert heard() == []


def test_a_failure_of_a_run_that_was_to_be_cancelled_is_its_cancellation(bench: Bench) -> None:
    claim = bench.claimed()
    ask_to_stop(bench, claim.task_id)
    assert bench.settle(claim, Failed(an_error())) == Recorded("cancelled", owes_dead_letter=False, fresh=True)
