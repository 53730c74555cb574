"""Steps that people ask for: cancel, replay, and what they leave behind."""

from __future__ import annotations

import pytest

from chiffon.agent import child
from chiffon.agent.run import Run
from chiffon.dispatch.cancel import Cancelling, cancel
from chiffon.dispatch.replay import replay
from chiffon.domain.errors import WrongState
from chiffon.domain.states import REPLAYABLE, State
from chiffon.domain.tasks import Accepted, Duplicate
from chiffon.domain.verdicts import Completed, Crashed, Failed, RetryLater
from chiffon.ledger.condemn import condemn, may_wait
from chiffon.ledger.follow import follow
from tests.bench import LEASE, TTL, Bench, listening
from tests.builders import an_error, new_task


def test_cancelled_work_has_all_that_an_end_is(bench: Bench) -> None:
    task_id = bench.born(request_id="r")
    with listening(bench) as heard:
        assert cancel(bench.ledger, task_id, ttl=TTL) == Cancelling.ENDED
        assert heard() == [task_id]
    row = bench.row(task_id)
    assert (row["status"], row["next_ring_at"], row["finished_at"] is not None) == ("cancelled", None, True)
    word, result = bench.result(task_id) or ("", None)
    assert (word, result["exc_type"]) == ("REVOKED", "TaskRevokedError")
    assert bench.history(task_id) == ["pending", "cancelled"]
    assert bench.accept(new_task(request_id="r")) == [Duplicate(task_id)]
    bench.pass_time(TTL + 1)
    assert bench.accept(again := new_task(request_id="r")) == [Accepted(again.task_id)]


def test_a_wish_to_stop_is_noted_once_and_outlives_whoever_asked(bench: Bench) -> None:
    claim = bench.claimed()
    for _ in range(3):
        assert cancel(bench.ledger, claim.task_id, ttl=TTL) == Cancelling.ASKED
    assert bench.history(claim.task_id) == ["pending", "running", "running"]
    assert bench.row(claim.task_id)["cancel_requested_at"] is not None


@pytest.mark.parametrize("end", sorted(REPLAYABLE))
def test_a_replayed_task_is_as_new_under_its_old_id(bench: Bench, end: State) -> None:
    task_id = bench.task_in(end)
    ring = replay(bench.ledger, task_id, lease=LEASE)
    row = bench.row(task_id)
    assert (row["status"], row["ring_no"]) == ("pending", ring.ring_no)
    for column in ("error", "finished_at", "started_at", "queued_at", "expires_at", "cancel_requested_at", "agent_id"):
        assert row[column] is None, column
    for column in ("retries", "crashes", "agent_deaths", "give_backs"):
        assert row[column] == 0, column
    assert not row["dead_letter_owed"]
    assert bench.result(task_id) is None
    assert bench.history(task_id)[-2:] == [end, "pending"]


def test_the_execution_number_goes_on_after_a_replay(bench: Bench) -> None:
    old = bench.claimed()
    bench.settle(old, Failed(an_error()))
    replay(bench.ledger, old.task_id, lease=LEASE)
    bench.settle(old, Completed('"stale"'))
    assert bench.status(old.task_id) == "pending"
    new = bench.claimed(old.task_id)
    assert new.execution == 2
    bench.settle(old, Completed('"stale"'))
    bench.settle(new, Completed('"fresh"'))
    assert bench.result(old.task_id) == ("SUCCESS", "fresh")
    assert bench.outcomes(old.task_id) == ["failed", "completed"]


def test_a_replayed_task_has_its_retries_and_crashes_again(bench: Bench) -> None:
    task_id = bench.born()
    for verdict in (Crashed(an_error()), RetryLater(0.0, an_error()), Failed(an_error())):
        bench.settle(bench.claimed(task_id), verdict)
    replay(bench.ledger, task_id, lease=LEASE)
    for _ in range(2):
        assert bench.settle(bench.claimed(task_id), Crashed(an_error())).status == "pending"  # type: ignore[union-attr]


def test_a_replayed_task_holds_its_key_again(bench: Bench) -> None:
    task_id = bench.task_in(State.FAILED, request_id="r")
    bench.pass_time(TTL + 1)
    replay(bench.ledger, task_id, lease=LEASE)
    bench.pass_time(1_000_000)
    assert bench.accept(new_task(request_id="r")) == [Duplicate(task_id)]


def test_a_replay_is_refused_whose_key_belongs_to_another_task(bench: Bench) -> None:
    task_id = bench.task_in(State.FAILED, request_id="r")
    bench.pass_time(TTL + 1)
    bench.task_in(State.COMPLETED, request_id="r")
    with pytest.raises(WrongState, match="belongs to another task"):
        replay(bench.ledger, task_id, lease=LEASE)
    assert bench.status(task_id) == "failed"
    bench.pass_time(TTL + 1)
    replay(bench.ledger, task_id, lease=LEASE)
    assert bench.accept(new_task(request_id="r")) == [Duplicate(task_id)]


def test_work_without_a_key_of_its_own_is_replayed_too(bench: Bench) -> None:
    task_id = bench.task_in(State.FAILED, request_id="r", keyed=False)
    assert replay(bench.ledger, task_id, lease=LEASE).task_id == task_id


def test_two_messages_of_one_key_do_not_replay_side_by_side(bench: Bench) -> None:
    first = bench.task_in(State.FAILED, request_id="r")
    second = new_task(request_id="r")
    with bench.transaction() as cursor:
        follow(cursor, second, first)
    replay(bench.ledger, first, lease=LEASE)
    with pytest.raises(WrongState, match="belongs to another task"):
        replay(bench.ledger, second.task_id, lease=LEASE)
    assert bench.status(second.task_id) == "failed"


def test_a_replay_of_scheduled_work_that_was_cancelled_runs_now(bench: Bench) -> None:
    task_id = bench.born(delay=3600.0)
    cancel(bench.ledger, task_id, ttl=TTL)
    replay(bench.ledger, task_id, lease=LEASE)
    assert bench.row(task_id)["run_at"] is None
    bench.claimed(task_id)


def test_condemned_work_owes_its_dead_letter_unless_its_holder_pays(bench: Bench) -> None:
    for owed in (True, False):
        task_id = bench.born()
        with bench.transaction() as cursor:
            assert condemn(cursor, task_id, an_error("nobody knows it", "Unknown"), owed=owed, ttl=TTL)
        row = bench.row(task_id)
        assert (row["status"], row["dead_letter_owed"], row["error"]["message"]) == (
            "dead_lettered",
            owed,
            "nobody knows it",
        )
        assert (bench.result(task_id) or ("",))[0] == "FAILURE"
        assert bench.history(task_id) == ["pending", "dead_lettered"]


def test_unknown_work_may_wait_while_it_is_young_or_some_agent_knew_it_lately(bench: Bench) -> None:
    def waits(work_type: str) -> bool:
        with bench.transaction() as cursor:
            return may_wait(cursor, task_id, work_type, within=3600)

    task_id = bench.born()
    assert waits("unheard.of")
    bench.pass_time(3601)
    assert not waits("unheard.of")
    bench.agent("newer", work_types=["echo", "unheard.of"])
    assert waits("unheard.of")
    bench.pass_time(3601)
    assert not waits("unheard.of")


def test_a_run_is_told_to_stop_when_somebody_asks_and_when_another_has_taken_its_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "ledger", lambda: bench.ledger)
    monkeypatch.setattr(child, "ASK_EVERY", 0.0)
    first = bench.claimed()

    def hears(execution: int) -> bool:
        return child.ask_cancelled(Run(first.task_id, execution, first.trace_id, "r", 1, 0, None, timeout=3600.0))

    assert not hears(1)
    bench.settle(first, Crashed(an_error()))
    assert hears(1)
    bench.claimed(first.task_id)
    assert (hears(1), hears(2)) == (True, False)
    cancel(bench.ledger, first.task_id, ttl=TTL)
    assert hears(2)
