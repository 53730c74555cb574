"""Races: of many who ask at once, one gets it, and nobody waits for ever."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from chiffon.dispatch import submit
from chiffon.dispatch.cancel import Cancelling, cancel
from chiffon.dispatch.submit import submit_all
from chiffon.domain.states import State
from chiffon.domain.tasks import Accepted, Claim, Duplicate, HeldElsewhere, NewTask
from chiffon.domain.verdicts import Completed
from chiffon.ledger import accept as accepting
from chiffon.ledger import claims, rings
from chiffon.ledger.accept import accept
from chiffon.ledger.connect import open_session, session_transaction
from chiffon.ledger.failures import LostRace, RefusedData
from chiffon.ledger.follow import follow
from chiffon.ledger.settle import Recorded
from tests.bench import LEASE, TTL, Bench
from tests.builders import new_task
from tests.racing import Thread, race, until

RACERS = 8


def submitting(bench: Bench, tasks: list[NewTask]) -> Callable[[], Any]:
    """A caller who submits these."""
    return lambda: submit_all(bench.ledger, tasks, lease=LEASE)[0]


def waiting(bench: Bench) -> int:
    """How many sessions wait for a lock."""
    ((count,),) = bench.sql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return int(count)


def look_up_one_by_one(bench: Bench) -> None:
    """Have Postgres touch rows in the order of the statement's arguments, as it does with large tables."""
    ((name,),) = bench.sql("SELECT current_database()")
    for plan in ("hashjoin", "mergejoin", "seqscan", "bitmapscan"):
        bench.sql(f"ALTER DATABASE {name} SET enable_{plan} = off")


def test_of_eight_who_bring_one_request_id_one_is_accepted_and_seven_are_told_its_task(bench: Bench) -> None:
    for _ in range(5):
        request_id = str(uuid.uuid4())
        fates = race(submitting(bench, [new_task(request_id=request_id)]) for _ in range(RACERS))
        accepted = [fate for (fate,) in fates if isinstance(fate, Accepted)]
        assert len(accepted) == 1
        assert [fate for (fate,) in fates].count(Duplicate(accepted[0].task_id)) == RACERS - 1


def test_of_eight_who_bring_one_task_id_one_is_accepted(bench: Bench) -> None:
    for _ in range(5):
        task_id = new_task().task_id
        fates = race(submitting(bench, [new_task(task_id=task_id)]) for _ in range(RACERS))
        assert sorted(type(fate).__name__ for (fate,) in fates) == ["Accepted"] + ["Duplicate"] * (RACERS - 1)
        assert bench.sql("SELECT count(*) FROM task_history WHERE task_id = %s", task_id) == [(1,)]


def test_of_eight_who_find_an_expired_key_one_gets_it(bench: Bench) -> None:
    old = bench.task_in(State.COMPLETED, request_id="r")
    bench.pass_time(301)
    fates = race(submitting(bench, [new_task(request_id="r")]) for _ in range(RACERS))
    assert sorted(type(fate).__name__ for (fate,) in fates) == ["Accepted"] + ["Duplicate"] * (RACERS - 1)
    assert old not in {fate.task_id for (fate,) in fates}


def test_batches_in_opposite_orders_do_not_wait_for_each_other(bench: Bench) -> None:
    for _ in range(5):
        batch = [new_task() for _ in range(200)]
        fates = race([submitting(bench, batch), submitting(bench, batch[::-1])] * 2)
        accepted = [fate.task_id for several in fates for fate in several if isinstance(fate, Accepted)]
        assert sorted(accepted) == sorted(task.task_id for task in batch)


def test_keys_in_opposite_orders_do_not_wait_for_each_other(bench: Bench) -> None:
    for _ in range(5):
        keys = [str(uuid.uuid4()) for _ in range(200)]
        batches = [[new_task(request_id=key) for key in order] for order in (keys, keys[::-1])]
        fates = race(submitting(bench, batch) for batch in batches)
        winners = {fate.task_id for several in fates for fate in several if isinstance(fate, Accepted)}
        assert len(winners) == len(keys)
        assert {fate.task_id for several in fates for fate in several} == winners


def test_task_ids_in_opposite_orders_do_not_wait_for_each_other(bench: Bench) -> None:
    for _ in range(5):
        batch = [new_task(keyed=False) for _ in range(300)]
        fates = race([submitting(bench, batch), submitting(bench, batch[::-1])])
        accepted = [fate.task_id for several in fates for fate in several if isinstance(fate, Accepted)]
        assert sorted(accepted) == sorted(task.task_id for task in batch)


def test_of_agents_that_claim_one_task_one_gets_it(bench: Bench) -> None:
    agents = [bench.agent(f"agent-{number}") for number in range(4)]
    for _ in range(5):
        task_id = bench.born()
        fates = race(partial(agent.claim, task_id) for agent in agents)
        winner = next(agent for agent, fate in zip(agents, fates, strict=True) if isinstance(fate, Claim))
        assert fates.count(HeldElsewhere(task_id, winner.incarnation)) == 3
        assert bench.outcomes(task_id) == [None]


def test_agents_that_claim_the_same_tasks_in_opposite_orders_share_them_out(bench: Bench) -> None:
    agents = [bench.agent(f"agent-{number}") for number in range(4)]
    tasks = [bench.born() for _ in range(50)]
    orders = [tasks, tasks[::-1], tasks[25:] + tasks[:25], tasks[25:][::-1] + tasks[:25]]
    found = race(partial(agent.claim_all, order) for agent, order in zip(agents, orders, strict=True))
    claimed = [task_id for fates in found for task_id, fate in fates.items() if isinstance(fate, Claim)]
    assert sorted(claimed) == sorted(tasks)


def test_nor_do_they_wait_for_each_other_where_postgres_locks_in_the_order_it_is_asked(bench: Bench) -> None:
    look_up_one_by_one(bench)
    one, other = bench.agent("one"), bench.agent("other")
    first, second = bench.born(task_id="1"), bench.born(task_id="2")
    with bench.transaction() as cursor:
        cursor.execute("SELECT true FROM tasks WHERE task_id = %s FOR UPDATE", (second,))
        backwards = Thread(lambda: other.claim_all([second, first]))
        until(lambda: waiting(bench) == 1)
        forwards = Thread(lambda: one.claim_all([first, second]))
        until(lambda: waiting(bench) == 2)
    fates = [*backwards.answer().values(), *forwards.answer().values()]
    assert sorted(type(fate).__name__ for fate in fates) == ["Claim", "Claim", "HeldElsewhere", "HeldElsewhere"]


def test_a_cancel_and_a_claim_of_one_task_have_one_winner(bench: Bench) -> None:
    agent = bench.agent()
    for _ in range(10):
        task_id = bench.born()
        cancelled, fate = race([partial(cancel, bench.ledger, task_id, ttl=TTL), partial(agent.claim, task_id)])
        assert (cancelled == Cancelling.ASKED) == isinstance(fate, Claim)


def test_two_sweepers_lease_no_ring_twice(bench: Bench) -> None:
    tasks = [new_task() for _ in range(200)]
    bench.accept(*tasks)
    bench.pass_time(LEASE + 1)

    def sweep() -> list[str]:
        with bench.transaction() as cursor:
            return [ring.task_id for ring in rings.lease(cursor, limit=60, lease=LEASE)]

    leased = [task_id for several in race([sweep] * 4) for task_id in several]
    assert len(leased) == len(set(leased))
    assert set(leased) <= {task.task_id for task in tasks}


def test_a_sweeper_passes_by_what_another_holds(bench: Bench) -> None:
    bench.born(), bench.born()
    bench.pass_time(LEASE + 1)
    with bench.transaction() as one, bench.transaction() as other:
        assert len(rings.lease(one, limit=1, lease=LEASE)) == 1
        assert len(rings.lease(other, limit=10, lease=LEASE)) == 1


def test_an_end_and_a_repeated_batch_of_keys_do_not_wait_for_each_other(bench: Bench) -> None:
    tasks = [new_task(task_id="1", request_id="b"), new_task(task_id="2", request_id="a")]
    bench.accept(*tasks)
    held = [bench.claimed(task.task_id) for task in tasks]
    with bench.transaction() as cursor:
        fates, _ = accept(cursor, [new_task(request_id="a"), new_task(request_id="b")], lease=LEASE)
        assert fates == [Duplicate("2"), Duplicate("1")]
        ended = Thread(lambda: [bench.settle(claim, Completed("1")) for claim in held])
        assert all(isinstance(answer, Recorded) for answer in ended.answer())


def test_an_end_and_a_message_that_wants_to_share_it_do_not_wait_for_each_other(bench: Bench) -> None:
    claim = bench.claimed(bench.born(request_id="r"))
    with bench.transaction() as cursor:
        second = new_task(request_id="r")
        assert accept(cursor, [second], lease=LEASE)[0] == [Duplicate(claim.task_id)]
        ended = Thread(lambda: bench.settle(claim, Completed("1")))
        until(lambda: not ended.is_alive() or waiting(bench))
        assert follow(cursor, second, claim.task_id) == "completed"
    assert isinstance(ended.answer(), Recorded)


def test_a_claim_waits_for_the_commit_of_another_and_then_sees_it(bench: Bench) -> None:
    one, other = bench.agent("one"), bench.agent("other")
    task_id = bench.born()
    with session_transaction(one.session) as cursor:
        claims.claim(cursor, {task_id: str(uuid.uuid4())}, incarnation=one.incarnation, agent_id="one")
        late = Thread(lambda: other.claim(task_id))
        until(lambda: waiting(bench) == 1)
    assert late.answer() == HeldElsewhere(task_id, one.incarnation)


@pytest.mark.parametrize("how", ["commit", "rollback"])
def test_an_acceptance_waits_for_another_with_its_key(bench: Bench, how: str) -> None:
    first, second = new_task(request_id="r"), new_task(request_id="r")
    session = open_session(bench.url, "first")
    with session.cursor() as cursor:
        accept(cursor, [first], lease=LEASE)
        late = Thread(submitting(bench, [second]))
        until(lambda: waiting(bench) == 1)
        getattr(session, how)()
    assert late.answer() == [Duplicate(first.task_id) if how == "commit" else Accepted(second.task_id)]
    session.close()


def test_who_holds_a_request_id_and_does_not_go_on_holds_up_nobody_elses_and_its_own_for_some_seconds(
    bench: Bench,
) -> None:
    held, others = new_task(request_id="held", fresh=True), [new_task(fresh=True) for _ in range(8)]
    with bench.transaction() as cursor:
        cursor.execute("INSERT INTO request_keys VALUES ('held', 'nobody', 'f')")
        began = time.monotonic()
        waiting_for_it = Thread(lambda: submit_all(bench.ledger, [held], lease=LEASE))
        following = [Thread(lambda task=task: submit_all(bench.ledger, [task], lease=LEASE)) for task in others]
        assert [thread.answer()[0] for thread in following] == [[Accepted(task.task_id)] for task in others]
        assert time.monotonic() - began < 1.5
        with pytest.raises(LostRace, match="nothing was accepted"):
            waiting_for_it.answer()
        assert time.monotonic() - began < 8
        cursor.connection.rollback()
    assert submit_all(bench.ledger, [held], lease=LEASE)[0] == [Accepted(held.task_id)]


@pytest.fixture
def patient_company(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who go together wait for a row as long as anybody."""
    monkeypatch.setattr(accepting, "_BEAR_TOGETHER", accepting._BEAR_IF_FREE)


@pytest.mark.usefixtures("patient_company")
def test_what_is_dispatched_while_a_commit_is_under_way_is_accepted_together_by_the_next(bench: Bench) -> None:
    first, others = new_task(request_id="held", fresh=True), [new_task(fresh=True) for _ in range(5)]
    refused = new_task(fresh=True, labels={"a": "\ud800"})
    with bench.transaction() as cursor:
        cursor.execute("INSERT INTO request_keys VALUES ('held', 'nobody', 'f')")
        leading = Thread(lambda: submit_all(bench.ledger, [first], lease=LEASE))
        until(lambda: bench.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        following = [Thread(lambda task=task: submit_all(bench.ledger, [task], lease=LEASE)) for task in others]
        until(lambda: len(submit._company(bench.ledger)._waiting) == len(others))
        cursor.connection.rollback()
    assert leading.answer()[0] == [Accepted(first.task_id)]
    assert [thread.answer()[0] for thread in following] == [[Accepted(task.task_id)] for task in others]
    ids = [task.task_id for task in others]
    assert bench.sql("SELECT count(DISTINCT xmin::text) FROM tasks WHERE task_id = ANY(%s)", ids) == [(1,)]
    with pytest.raises(RefusedData):
        submit_all(bench.ledger, [refused], lease=LEASE)


@pytest.mark.usefixtures("patient_company")
def test_a_task_that_the_ledger_refuses_costs_those_beside_it_nothing(bench: Bench) -> None:
    first, refused = new_task(request_id="held", fresh=True), new_task(fresh=True, labels={"a": "\ud800"})
    others = [new_task(fresh=True) for _ in range(3)]
    with bench.transaction() as cursor:
        cursor.execute("INSERT INTO request_keys VALUES ('held', 'nobody', 'f')")
        leading = Thread(lambda: submit_all(bench.ledger, [first], lease=LEASE))
        until(lambda: bench.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        together = [refused, *others]
        following = [Thread(lambda task=task: submit_all(bench.ledger, [task], lease=LEASE)) for task in together]
        until(lambda: len(submit._company(bench.ledger)._waiting) == len(together))
        cursor.connection.rollback()
    with pytest.raises(RefusedData):
        following[0].answer()
    assert [thread.answer()[0] for thread in following[1:]] == [[Accepted(task.task_id)] for task in others]
    assert leading.answer()[0] == [Accepted(first.task_id)]
