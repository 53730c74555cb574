"""Work of the dead is taken over; work of the living never, whatever else happens."""

from __future__ import annotations

import pytest

from chiffon.devstack.postgres import PrivatePostgres
from chiffon.dispatch.sweep import Watch
from chiffon.domain.errors import LedgerUnavailable
from chiffon.domain.verdicts import Completed
from chiffon.ledger import agents, control, sweeps
from chiffon.ledger.connect import open_session, session_transaction
from chiffon.ledger.settle import Fenced
from tests.bench import Bench
from tests.racing import until


def unlocked(bench: Bench) -> set[int]:
    """Whose lock is free while they hold tasks."""
    with bench.transaction() as cursor:
        return sweeps.unlocked(cursor)


def test_an_agent_that_died_is_seen_by_its_free_lock(bench: Bench) -> None:
    living, dying = bench.agent("living"), bench.agent("dying")
    for agent in (living, dying):
        bench.claimed(by=agent)
    assert unlocked(bench) == set()
    bench.lose(dying)
    assert unlocked(bench) == {dying.incarnation}


def test_an_agent_that_died_without_work_is_nobodys_business(bench: Bench) -> None:
    bench.agent("idle").die()
    assert unlocked(bench) == set()


def test_its_work_is_pending_again_and_rung_at_once(bench: Bench) -> None:
    agent = bench.agent("mortal")
    claim = bench.claimed(by=agent)
    bench.lose(agent)
    assert bench.take_over(agent.incarnation) == [claim.task_id]
    row = bench.row(claim.task_id)
    assert (row["status"], row["incarnation"], row["claim_token"], row["execution"]) == ("pending", None, None, 1)
    assert bench.sql("SELECT next_ring_at <= clock_timestamp() FROM tasks") == [(True,)]
    assert bench.outcomes(claim.task_id) == ["agent_lost"]
    assert bench.history(claim.task_id) == ["pending", "running", "pending"]
    assert "mortal died" in row["error"]["message"]
    assert unlocked(bench) == set()


def test_a_living_agent_keeps_its_work_whoever_tries(bench: Bench) -> None:
    agent = bench.agent("living")
    claim = bench.claimed(by=agent)
    assert bench.take_over(agent.incarnation) == []
    assert bench.status(claim.task_id) == "running"


def test_even_a_former_life_of_the_same_agent_is_another(bench: Bench) -> None:
    before = bench.agent("worker@here")
    claim = bench.claimed(by=before)
    bench.lose(before)
    after = bench.agent("worker@here")
    assert after.incarnation > before.incarnation
    assert unlocked(bench) == {before.incarnation}
    assert bench.take_over(before.incarnation) == [claim.task_id]


def test_only_what_had_started_is_charged_with_the_death(bench: Bench) -> None:
    agent = bench.agent("mortal")
    started, waiting = bench.claimed(by=agent), bench.claimed(by=agent)
    bench.start(started)
    bench.lose(agent)
    bench.take_over(agent.incarnation)
    charged, spared = bench.row(started.task_id), bench.row(waiting.task_id)
    assert (charged["agent_deaths"], charged["give_backs"], charged["crashes"]) == (1, 0, 0)
    assert (spared["agent_deaths"], spared["give_backs"], spared["crashes"]) == (0, 1, 0)


def test_a_task_that_takes_every_agent_with_it_is_dead_lettered_at_the_limit(bench: Bench) -> None:
    task_id = bench.born()
    for number in range(1, 4):
        agent = bench.agent(f"mortal-{number}")
        claim = bench.claimed(task_id, by=agent)
        bench.start(claim)
        bench.lose(agent)
        bench.take_over(agent.incarnation, max_deaths=3)
        assert bench.status(task_id) == ("dead_lettered" if number == 3 else "pending")
    assert bench.row(task_id)["dead_letter_owed"]
    assert (bench.result(task_id) or ("",))[0] == "FAILURE"
    assert bench.outcomes(task_id) == ["agent_lost"] * 3


def test_a_task_that_never_starts_is_never_blamed(bench: Bench) -> None:
    task_id = bench.born()
    for number in range(5):
        agent = bench.agent(f"mortal-{number}")
        bench.claimed(task_id, by=agent)
        bench.lose(agent)
        bench.take_over(agent.incarnation, max_deaths=1)
    assert bench.status(task_id) == "pending"


def test_a_cancel_that_was_asked_for_is_done_by_the_takeover(bench: Bench) -> None:
    agent = bench.agent("mortal")
    claim = bench.claimed(by=agent)
    with bench.transaction() as cursor:
        control.ask_to_stop(cursor, claim.task_id)
    bench.lose(agent)
    bench.take_over(agent.incarnation)
    assert bench.status(claim.task_id) == "cancelled"
    assert (bench.result(claim.task_id) or ("",))[0] == "REVOKED"


def test_one_who_comes_back_finds_that_its_work_is_anothers(bench: Bench) -> None:
    agent = bench.agent("lazarus")
    lost, kept = bench.claimed(by=agent), bench.claimed(by=agent)
    bench.sql("UPDATE tasks SET incarnation = 999 WHERE task_id = %s", lost.task_id)
    agent.die()
    session = open_session(bench.url, "again")
    with session_transaction(session) as cursor:
        assert until(lambda: agents.lock(cursor, agent.incarnation))
        assert agents.rejoin(cursor, agent.incarnation) == {(kept.task_id, 1)}
    assert unlocked(bench) == {999}
    session.close()


def test_whoever_takes_over_holds_the_lock_meanwhile(bench: Bench) -> None:
    agent = bench.agent("lazarus")
    claim = bench.claimed(by=agent)
    bench.lose(agent)
    session = open_session(bench.url, "again")
    with bench.transaction() as sweeper:
        freed = sweeps.take_over(sweeper, agent.incarnation, ttl=300, max_deaths=9)
        assert freed == [(claim.task_id, claim.request_id, claim.trace_id)]
        with session_transaction(session) as cursor:
            assert not agents.lock(cursor, agent.incarnation)
    with session_transaction(session) as cursor:
        assert agents.lock(cursor, agent.incarnation)
        assert agents.rejoin(cursor, agent.incarnation) == set()
    assert bench.settle(claim, Completed("1")) == Fenced()
    session.close()


def test_two_sweepers_take_over_once(bench: Bench) -> None:
    agent = bench.agent("mortal")
    claim = bench.claimed(by=agent)
    bench.lose(agent)
    with bench.transaction() as one, bench.transaction() as other:
        found = [sweeps.take_over(cursor, agent.incarnation, ttl=300, max_deaths=9) for cursor in (one, other)]
    assert [len(freed) for freed in found] == [1, 0]
    assert found[0][0].task_id == claim.task_id


def test_a_mute_agent_is_cut_off_and_a_living_one_is_not(bench: Bench) -> None:
    mute, living = bench.agent("mute"), bench.agent("living")
    bench.pass_time(200)
    with session_transaction(living.session) as cursor:
        agents.beat(cursor, living.incarnation, queues=["work_queue"], slots=4)
    with bench.transaction() as cursor:
        assert sweeps.mute(cursor, offline_after=180) == {mute.incarnation}
        both = {mute.incarnation, living.incarnation}
        assert sweeps.silence(cursor, both, offline_after=180) == [mute.incarnation]
    with pytest.raises(LedgerUnavailable), session_transaction(mute.session) as cursor:
        cursor.execute("SELECT 1")
    bench.claimed(by=living)


def test_a_restart_of_postgres_makes_nobody_look_dead(bench: Bench, postgres: PrivatePostgres) -> None:
    """It frees every lock at once, and breaks the watcher's session too: what was seen on that proves nothing."""
    clock = [0.0]
    watch = Watch(2.0, 2.0, lambda: clock[0])
    agent = bench.agent("living")
    claim = bench.claimed(by=agent)
    watcher = open_session(bench.url, "watcher")
    with session_transaction(watcher) as cursor:
        assert watch.look(sweeps.unlocked(cursor)) == set()
    postgres.restart()
    clock[0] += 10
    with pytest.raises(LedgerUnavailable), session_transaction(watcher) as cursor:
        sweeps.unlocked(cursor)
    watch.forget()
    watcher = open_session(bench.url, "watcher")
    with session_transaction(watcher) as cursor:
        assert sweeps.unlocked(cursor) == {agent.incarnation}
        assert watch.look(sweeps.unlocked(cursor)) == set()
    agent.session = open_session(bench.url, "agent again")
    with session_transaction(agent.session) as cursor:
        assert agents.lock(cursor, agent.incarnation)
        assert agents.rejoin(cursor, agent.incarnation) == {(claim.task_id, 1)}
    clock[0] += 10
    with session_transaction(watcher) as cursor:
        assert watch.look(sweeps.unlocked(cursor)) == set()
    assert not isinstance(bench.settle(claim, Completed("1")), Fenced)
    watcher.close()


def test_a_task_in_any_other_state_is_not_the_deads(bench: Bench) -> None:
    bench.in_every_state()
    bench.someone.die()
    until(lambda: unlocked(bench) == {bench.someone.incarnation})
    bench.take_over(bench.someone.incarnation)
    assert unlocked(bench) == set()
