"""To ring is to lease: each ring doubles the wait, and a late confirm of an old ring moves nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from chiffon.bus.letters import LARGEST_BODY
from chiffon.dispatch.replay import replay
from chiffon.dispatch.ring import doorbell
from chiffon.dispatch.submit import first_ring
from chiffon.domain.states import State
from chiffon.domain.tasks import Ring
from chiffon.domain.verdicts import Crashed, Failed, GivenBack, RetryLater, Verdict
from chiffon.ledger import rings, sweeps
from tests.bench import LEASE, Bench
from tests.builders import an_error, new_task


def lease(bench: Bench, *, limit: int = 100) -> list[Ring]:
    """The rings that are due."""
    with bench.transaction() as cursor:
        return rings.lease(cursor, limit=limit, lease=LEASE)


def wait_of(bench: Bench, task_id: str) -> float:
    """Seconds until a task is rung again."""
    statement = "SELECT extract(epoch FROM next_ring_at - clock_timestamp())::float8 FROM tasks WHERE task_id = %s"
    return float(bench.sql(statement, task_id)[0][0])


def test_nobody_rings_while_the_acceptor_has_the_lease(bench: Bench) -> None:
    bench.born()
    assert lease(bench) == []


def test_what_its_acceptor_did_not_ring_is_rung_by_the_sweeper_with_all_that_a_doorbell_says(bench: Bench) -> None:
    task = new_task(parameters={"input": 1}, arguments=[2], canvas={"root_id": "r"}, priority=5, queue="work_queue.gpu")
    bench.accept(task)
    bench.pass_time(LEASE + 1)
    (ring,) = lease(bench)
    assert ring == Ring(
        task.task_id,
        2,
        task.request_id,
        task.trace_id,
        "echo",
        "work_queue.gpu",
        5,
        {"input": 1},
        [2],
        {"root_id": "r"},
        retries=0,
    )


def test_each_ring_doubles_the_wait_up_to_a_limit(bench: Bench) -> None:
    task_id = bench.born()
    waits = []
    for _ in range(9):
        bench.pass_time(100_000)
        lease(bench)
        waits.append(wait_of(bench, task_id))
    assert waits == [pytest.approx(LEASE * 2 ** min(n, 6), abs=2) for n in range(1, 10)]


def test_one_sweep_takes_no_more_than_its_limit_and_the_oldest_first(bench: Bench) -> None:
    tasks = []
    for _ in range(5):
        tasks.append(bench.born())
        bench.pass_time(60)
    assert [ring.task_id for ring in lease(bench, limit=2)] == tasks[:2]
    assert [ring.task_id for ring in lease(bench, limit=9)] == tasks[2:]


def test_a_confirm_moves_a_task_to_queued_once(bench: Bench) -> None:
    task_id = bench.born()
    assert bench.confirm(task_id, 1) == 1
    row = bench.row(task_id)
    assert (row["status"], row["next_ring_at"], row["queued_at"] is not None) == ("queued", None, True)
    assert bench.confirm(task_id, 1) == 0
    assert bench.history(task_id) == ["pending", "queued"]


def test_a_late_confirm_of_an_old_ring_moves_nothing(bench: Bench) -> None:
    task_id = bench.born()
    bench.pass_time(LEASE + 1)
    lease(bench)
    assert bench.confirm(task_id, 1) == 0
    assert bench.status(task_id) == "pending"
    assert bench.confirm(task_id, 2) == 1


def test_many_rings_are_confirmed_in_one_statement(bench: Bench) -> None:
    tasks = [bench.born() for _ in range(20)]
    with bench.transaction() as cursor:
        assert rings.confirm(cursor, [*((task_id, 1) for task_id in tasks), ("nobody", 1), (tasks[0], 7)]) == 20


@pytest.mark.parametrize(
    "verdict",
    [
        GivenBack(an_error(), started=False),
        GivenBack(an_error(), started=True),
        GivenBack(an_error(), started=False, after=60.0),
        Crashed(an_error()),
        RetryLater(0.0, an_error()),
    ],
    ids=["withdrawn", "given back", "given back for later", "crashed", "retried"],
)
def test_a_confirm_that_comes_after_the_message_was_used_up_moves_nothing(bench: Bench, verdict: Verdict) -> None:
    """An agent may be faster than the ringer writes down: the message of that ring is gone by now."""
    claim = bench.claimed()
    bench.settle(claim, verdict)
    bench.due()
    assert bench.status(claim.task_id) == "pending"
    assert bench.confirm(claim.task_id, 1) == 0
    assert bench.status(claim.task_id) == "pending"


def test_nor_does_one_that_comes_after_the_death_of_its_agent(bench: Bench) -> None:
    claim = bench.claimed()
    bench.lose(bench.someone)
    bench.take_over(bench.someone.incarnation)
    assert bench.confirm(claim.task_id, 1) == 0


def test_nor_does_one_that_comes_after_a_replay(bench: Bench) -> None:
    task_id = bench.task_in(State.FAILED)
    ring = replay(bench.ledger, task_id, lease=LEASE)
    assert bench.confirm(task_id, 1) == 0
    assert bench.confirm(task_id, ring.ring_no) == 1


@pytest.mark.parametrize("state", sorted(set(State) - {State.PENDING}))
def test_only_what_is_pending_is_rung(bench: Bench, state: State) -> None:
    bench.task_in(state)
    bench.sql("DELETE FROM tasks WHERE status = 'pending'")
    bench.pass_time(100_000)
    assert lease(bench) == []


def test_a_message_that_was_lost_is_rung_again_at_once(bench: Bench) -> None:
    lost, fresh = bench.task_in(State.QUEUED), None
    bench.pass_time(60)
    fresh = bench.task_in(State.QUEUED)
    other_queue = bench.task_in(State.QUEUED, queue="work_queue.gpu")

    def find(**wanted: object) -> Callable[[], int]:
        options = {
            "queue": "work_queue",
            "priority": None,
            "rung_before": None,
            "older_than": 30.0,
            "limit": 9,
        } | wanted
        with bench.transaction() as cursor:
            return sweeps.lost(cursor, **options)  # type: ignore[arg-type, return-value]

    assert find(priority=5) == 0
    assert find(queue="work_queue.disk") == 0
    assert find(older_than=90.0) == 0
    assert find(priority=3) == 1
    assert {task_id: bench.status(task_id) for task_id in (lost, fresh, other_queue)} == {
        lost: "pending",
        fresh: "queued",
        other_queue: "queued",
    }
    assert [ring.task_id for ring in lease(bench)] == [lost]
    assert bench.history(lost) == ["pending", "queued", "pending"]


def test_a_confirm_does_not_wait_for_who_holds_one_of_its_tasks(bench: Bench) -> None:
    held, free = bench.born(), bench.born()
    with bench.transaction() as holder, bench.transaction() as cursor:
        holder.execute("SELECT FROM tasks WHERE task_id = %s FOR UPDATE", [held])
        assert rings.confirm(cursor, [(held, 1), (free, 1)]) == 1
    assert (bench.status(held), bench.status(free)) == ("pending", "queued")


@pytest.mark.parametrize(
    "fields",
    [
        {"parameters": {"input": "x" * LARGEST_BODY}},
        {"arguments": ["x" * LARGEST_BODY], "parameters": {}},
        {"canvas": {"embed": {"chain": ["x" * LARGEST_BODY]}, "root_id": "r"}, "parameters": {}},
    ],
    ids=["parameters", "arguments", "canvas"],
)
def test_of_what_is_too_large_for_a_doorbell_nothing_is_read(bench: Bench, fields: dict[str, Any]) -> None:
    rung, owed = new_task(**fields), new_task(**fields)
    empty = doorbell(first_ring(new_task(parameters={}, arguments=[]))).letter().message.body
    assert doorbell(first_ring(rung)).letter().message.body == empty
    bench.accept(rung)
    bench.pass_time(LEASE + 1)
    [ring] = lease(bench)
    bench.accept(owed)
    bench.settle(bench.claimed(owed.task_id), Failed(an_error()))
    with bench.transaction() as cursor:
        [(debt, *_)] = sweeps.debts(cursor, limit=100, older=-1.0, lease=5)
    assert (ring.task_id, debt.task_id) == (rung.task_id, owed.task_id)
    for read in (ring, debt):
        assert len(str(read)) < LARGEST_BODY
        assert doorbell(read).letter().message.body == empty
        assert read.canvas.get("root_id") == rung.canvas.get("root_id")


def test_what_a_doorbell_can_say_is_read(bench: Bench) -> None:
    task = new_task(parameters={"input": "x" * (LARGEST_BODY - 100)}, arguments=[1], canvas={"embed": {"chain": []}})
    bench.accept(task)
    bench.pass_time(LEASE + 1)
    assert lease(bench) == [first_ring(task)._replace(ring_no=2)]
