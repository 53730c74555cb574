"""The registry of agents: who lives, who is busy, and who has not been heard of."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chiffon.dispatch.find import agents_online, find_agent, find_agents
from chiffon.domain.errors import AgentNotFound
from chiffon.domain.states import State
from chiffon.domain.verdicts import Completed, GivenBack, RetryLater
from chiffon.domain.views import AgentView
from chiffon.ledger import agents, control, queries, sweeps
from chiffon.ledger.connect import session_transaction
from chiffon.ledger.follow import follow
from tests.bench import Agent, Bench
from tests.builders import an_error, new_task

OFFLINE_AFTER = 180.0


def view(bench: Bench, agent: Agent) -> AgentView:
    """An agent as it is shown."""
    return find_agent(bench.ledger, agent.name, offline_after=OFFLINE_AFTER)


def beat(agent: Agent, slots: int = 4) -> None:
    """Say that it lives."""
    with session_transaction(agent.session) as cursor:
        agents.beat(cursor, agent.incarnation, queues=["work_queue"], slots=slots)


def test_an_agent_is_shown_with_what_it_can_do_and_does(bench: Bench) -> None:
    agent = bench.agent("worker@here", slots=3, work_types=["count", "echo"])
    claims = [bench.claimed(by=agent) for _ in range(2)]
    shown = view(bench, agent)
    assert (shown.agent_id, shown.incarnation, shown.hostname, shown.pid) == (
        "worker@here",
        agent.incarnation,
        "bench",
        1,
    )
    assert (shown.slots, shown.queues, shown.work_types) == (3, ("work_queue",), ("count", "echo"))
    assert (shown.status, shown.current_task_ids) == ("online", tuple(claim.task_id for claim in claims))


def test_it_is_busy_when_every_slot_is_taken(bench: Bench) -> None:
    agent = bench.agent("worker@here", slots=2)
    claims = [bench.claimed(by=agent) for _ in range(2)]
    assert view(bench, agent).status == "busy"
    bench.settle(claims[0], Completed("1"))
    assert view(bench, agent).status == "online"


def test_it_is_offline_when_it_was_not_heard_of_for_too_long_and_not_before(bench: Bench) -> None:
    agent = bench.agent("worker@here")
    bench.pass_time(175)
    assert view(bench, agent).status == "online"
    bench.pass_time(6)
    assert view(bench, agent).status == "offline"
    beat(agent)
    assert view(bench, agent).status == "online"


def test_it_is_draining_once_it_says_so_and_offline_at_once_when_it_leaves(bench: Bench) -> None:
    agent = bench.agent("worker@here", slots=1)
    bench.claimed(by=agent)
    with session_transaction(agent.session) as cursor:
        agents.drain(cursor, agent.incarnation)
    assert view(bench, agent).status == "draining"
    with session_transaction(agent.session) as cursor:
        agents.leave(cursor, agent.incarnation)
    assert view(bench, agent).status == "offline"


def test_one_who_leaves_and_comes_back_is_online(bench: Bench) -> None:
    agent = bench.agent("worker@here")
    with session_transaction(agent.session) as cursor:
        agents.leave(cursor, agent.incarnation)
        agents.rejoin(cursor, agent.incarnation)
    assert view(bench, agent).status == "online"


def test_a_heartbeat_tells_how_it_is_by_now(bench: Bench) -> None:
    agent = bench.agent("worker@here")
    before = view(bench, agent).last_heartbeat_at
    with session_transaction(agent.session) as cursor:
        agents.beat(cursor, agent.incarnation, queues=["work_queue", "work_queue.gpu"], slots=9)
    after = view(bench, agent)
    assert (after.queues, after.slots) == (("work_queue", "work_queue.gpu"), 9)
    assert after.last_heartbeat_at > before


def test_each_start_draws_a_higher_incarnation_and_the_newest_is_shown(bench: Bench) -> None:
    lives = [bench.agent("worker@here") for _ in range(3)]
    assert [life.incarnation for life in lives] == sorted(life.incarnation for life in lives)
    shown = find_agents(bench.ledger, offline_after=OFFLINE_AFTER)
    assert [agent.incarnation for agent in shown] == [lives[-1].incarnation]


def test_only_the_newest_life_is_asked_what_it_runs(bench: Bench) -> None:
    for name in ("a", "b", "b", "b"):
        bench.agent(name)
    with bench.transaction() as cursor:
        values = {"offline_after": OFFLINE_AFTER, "agent_id": None}
        cursor.execute(f"EXPLAIN (ANALYZE, COSTS off, TIMING off) {queries._AGENTS}", values)
        (asked,) = (line for (line,) in cursor.fetchall() if "Aggregate" in line)
    assert "loops=2" in asked


def test_no_agent_shows_anothers_work(bench: Bench) -> None:
    mine, theirs = bench.agent("a"), bench.agent("b")
    claims = {agent.name: bench.claimed(by=agent).task_id for agent in (mine, theirs)}
    shown = find_agents(bench.ledger, offline_after=OFFLINE_AFTER)
    assert {agent.agent_id: agent.current_task_ids for agent in shown} == {
        name: (task_id,) for name, task_id in claims.items()
    }


def test_who_was_never_there_is_not_found(bench: Bench) -> None:
    for name in ("nobody", "", "a\x00b"):
        with pytest.raises(AgentNotFound):
            find_agent(bench.ledger, name, offline_after=OFFLINE_AFTER)


def test_the_living_are_counted_for_each_work_type(bench: Bench) -> None:
    bench.agent("mute", work_types=["echo", "old"])
    bench.pass_time(OFFLINE_AFTER + 1)
    bench.agent("a", work_types=["echo", "count"])
    bench.agent("b", work_types=["echo"])
    gone = bench.agent("c", work_types=["echo"])
    with session_transaction(gone.session) as cursor:
        agents.leave(cursor, gone.incarnation)
    assert agents_online(bench.ledger, offline_after=OFFLINE_AFTER) == {"echo": 2, "count": 1}


def test_what_an_incarnation_still_holds_is_what_the_ledger_says(bench: Bench) -> None:
    agent = bench.agent("worker@here")
    kept, ended = bench.claimed(by=agent), bench.claimed(by=agent)
    bench.settle(ended, Completed("1"))
    bench.claimed(by=bench.agent("other"))
    with bench.transaction() as cursor:
        held = agents.still_held(cursor, agent.incarnation)
    assert held == {(kept.task_id, 1): (kept.request_id, kept.trace_id)}


def test_the_figures_of_each_queue_are_what_waits_and_runs_there(bench: Bench) -> None:
    bench.born()
    bench.pass_time(60)
    bench.in_every_state(queue="work_queue.gpu")
    bench.claimed(bench.born())
    with bench.transaction() as cursor:
        gpu, plain = sorted(queries.queues(cursor), key=lambda figures: figures.queue, reverse=True)
    assert (gpu.queue, gpu.waiting, gpu.running) == ("work_queue.gpu", 2, 1)
    assert (plain.queue, plain.waiting, plain.running) == ("work_queue", 1, 1)
    assert plain.oldest_age_seconds == pytest.approx(60, abs=3)
    assert gpu.oldest_age_seconds == pytest.approx(0, abs=3)


def due_later(bench: Bench) -> None:
    bench.born(delay=50.0)
    bench.pass_time(60)
    assert bench.due() == 1


def retried(bench: Bench) -> None:
    bench.settle(bench.claimed(), RetryLater(50.0, an_error()))
    bench.pass_time(60)
    assert bench.due() == 1


def given_back(bench: Bench) -> None:
    claim = bench.claimed()
    bench.pass_time(60)
    bench.settle(claim, GivenBack(an_error(), started=True))


def taken_over(bench: Bench) -> None:
    agent = bench.agent()
    claim = bench.claimed(by=agent)
    bench.pass_time(60)
    bench.lose(agent)
    assert bench.take_over(agent.incarnation) == [claim.task_id]


def replayed(bench: Bench) -> None:
    task_id = bench.task_in(State.FAILED)
    bench.pass_time(60)
    with bench.transaction() as cursor:
        assert control.replay(cursor, task_id, lease=5.0)


@pytest.mark.parametrize("again", [due_later, retried, given_back, taken_over, replayed])
def test_what_waits_again_waits_since_then_and_not_since_it_was_accepted(
    bench: Bench, again: Callable[[Bench], None]
) -> None:
    again(bench)
    assert oldest(bench) == pytest.approx(0, abs=3)
    bench.pass_time(10)
    assert oldest(bench) == pytest.approx(10, abs=3)
    ((task_id, ring_no),) = bench.sql("SELECT task_id, ring_no FROM tasks")
    assert bench.confirm(task_id, ring_no) == 1
    assert oldest(bench) == pytest.approx(10, abs=3)


def test_a_message_that_was_lost_begins_no_new_wait(bench: Bench) -> None:
    bench.task_in(State.QUEUED)
    bench.pass_time(60)
    with bench.transaction() as cursor:
        options = {"queue": "work_queue", "priority": None, "rung_before": None, "older_than": 30.0, "limit": 9}
        assert sweeps.lost(cursor, **options) == 1  # type: ignore[arg-type]
    assert oldest(bench) == pytest.approx(60, abs=3)


def test_who_waits_for_another_task_does_not_wait_for_an_agent(bench: Bench) -> None:
    first = bench.claimed()
    with bench.transaction() as cursor:
        follow(cursor, new_task(), first.task_id)
        (figures,) = queries.queues(cursor)
    assert (figures.waiting, figures.running, figures.oldest_age_seconds) == (1, 1, None)


def oldest(bench: Bench) -> float | None:
    """For how long something has waited, in the one queue that there is."""
    with bench.transaction() as cursor:
        (figures,) = queries.queues(cursor)
    return figures.oldest_age_seconds
