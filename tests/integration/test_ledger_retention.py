"""Retention: what ended long ago goes, with all that is known of it, and nothing that anybody still needs."""

from __future__ import annotations

from contextlib import closing

import pytest

from chiffon.dispatch import forget
from chiffon.dispatch.forget import Forgetting
from chiffon.domain.states import ENDS, State
from chiffon.domain.verdicts import Completed, Failed
from chiffon.ledger import agents, retention, sweeps
from chiffon.ledger.connect import open_session, session_transaction
from chiffon.ledger.effects import AFTER_END, RELEASE_CHORD, release_request_id
from chiffon.ledger.expiry import START
from chiffon.ledger.follow import follow
from tests.bench import Bench
from tests.builders import an_error, new_task
from tests.clock import Clock

AGE = 1000.0
TABLES = ("tasks", "executions", "results", "task_history", "request_keys")


def forgotten(bench: Bench, age: float = AGE) -> int:
    """How many tasks are forgotten now."""
    session = open_session(bench.url, "forgetful")
    try:
        return Forgetting(age).step(session)
    finally:
        session.close()


def known(bench: Bench) -> set[str]:
    """The tasks that there are."""
    return {task_id for (task_id,) in bench.sql("SELECT task_id FROM tasks")}


def test_of_an_ended_task_nothing_stays_when_its_time_is_over(bench: Bench) -> None:
    bench.settle(bench.claimed(), Completed("1"))
    bench.pass_time(AGE - 10)
    assert forgotten(bench) == 0
    bench.pass_time(20)
    assert forgotten(bench) == 1
    assert [bench.sql(f"SELECT count(*) FROM {table}") for table in TABLES] == [[(0,)]] * len(TABLES)


def test_without_a_time_nothing_is_forgotten(bench: Bench) -> None:
    bench.settle(bench.claimed(), Completed("1"))
    bench.pass_time(10 * AGE)
    assert forgotten(bench, age=0) == 0
    assert len(known(bench)) == 1


def test_what_has_not_ended_stays_however_old(bench: Bench) -> None:
    tasks = bench.in_every_state()
    bench.sql("UPDATE tasks SET dead_letter_owed = false")
    bench.pass_time(10 * AGE)
    assert forgotten(bench) == len(tasks.keys() & ENDS)
    assert known(bench) == {task_id for state, task_id in tasks.items() if State(state) not in ENDS}


def test_a_task_whose_dead_letter_is_owed_stays_until_it_is_paid(bench: Bench) -> None:
    bench.settle(bench.claimed(), Failed(an_error()))
    bench.pass_time(2 * AGE)
    assert forgotten(bench) == 0
    bench.sql("UPDATE tasks SET dead_letter_owed = false")
    assert forgotten(bench) == 1


def test_a_task_whose_key_still_answers_stays(bench: Bench) -> None:
    claim = bench.claimed()
    bench.settle(claim, Completed("1"))
    bench.pass_time(2 * AGE)
    bench.sql("UPDATE request_keys SET expires_at = clock_timestamp() + interval '1 hour'")
    assert forgotten(bench) == 0
    bench.pass_time(3601)
    assert forgotten(bench) == 1


def test_what_a_follower_or_a_chord_waits_for_stays(bench: Bench) -> None:
    first, part = bench.claimed(), new_task(canvas={"group": "chord"})
    bench.settle(first, Completed("1"))
    follower = new_task(request_id=first.request_id)
    bench.accept(part)
    bench.settle(bench.claimed(part.task_id), Completed("1"))
    bench.sql("INSERT INTO chords (group_id, size) VALUES ('chord', 2)")
    bench.pass_time(2 * AGE)
    bench.accept(new_task(task_id="elsewhere"))
    with bench.transaction() as cursor:
        follow(cursor, follower, "elsewhere")
    bench.sql("UPDATE tasks SET follows = %s WHERE follows IS NOT NULL", first.task_id)
    assert forgotten(bench) == 0
    bench.sql("UPDATE chords SET released_at = clock_timestamp()")
    assert forgotten(bench) == 0, "its body has yet to read the parts"
    bench.pass_time(2 * AGE)
    assert forgotten(bench) == 1
    assert part.task_id not in known(bench)
    assert first.task_id in known(bench)


def test_an_end_stays_until_what_it_sets_off_is_seen_to(bench: Bench) -> None:
    canvas = {"embed": {"errbacks": [{"task": "echo"}]}}
    task_ids = [bench.born(canvas=canvas), bench.born(canvas=canvas)]
    for task_id in task_ids:
        bench.sql("UPDATE tasks SET expires_at = clock_timestamp() WHERE task_id = %s", task_id)
    with bench.transaction() as cursor:
        assert len(sweeps.expire(cursor, limit=9, ttl=0)) == 2
    bench.pass_time(2 * AGE)
    assert forgotten(bench) == 0
    ((after,),) = bench.sql(
        "SELECT task_id FROM tasks WHERE work_type = %s AND parameters ->> 'task_id' = %s", AFTER_END, task_ids[0]
    )
    bench.settle(bench.claimed(after), Completed("null"))
    assert forgotten(bench) == 1
    assert task_ids[0] not in known(bench)
    assert task_ids[1] in known(bench)


def test_the_parts_of_a_chord_stay_until_its_body_is_gone_on_with(bench: Bench) -> None:
    part = new_task(canvas={"group": "chord"})
    release = new_task(work_type=RELEASE_CHORD, request_id=release_request_id("chord"), keyed=False)
    bench.accept(part, release)
    bench.settle(bench.claimed(part.task_id), Completed("1"))
    bench.sql("INSERT INTO chords (group_id, size, released_at) VALUES ('chord', 1, clock_timestamp())")
    bench.pass_time(2 * AGE)
    assert forgotten(bench) == 0
    bench.settle(bench.claimed(release.task_id), Completed("null"))
    assert forgotten(bench) == 1
    assert known(bench) == {release.task_id}


def test_what_still_needs_a_task_is_looked_up_and_not_read_from_end_to_end(bench: Bench) -> None:
    bench.settle(bench.claimed(), Completed("1"))
    many = "generate_series(1, 5000) AS n"
    bench.sql(
        "INSERT INTO tasks SELECT (jsonb_populate_record(t, jsonb_build_object("
        f"'task_id', 'task ' || n, 'request_id', 'request ' || n))).* FROM tasks t, {many}"
    )
    bench.sql(f"INSERT INTO chords (group_id, released_at) SELECT 'chord ' || n, clock_timestamp() FROM {many}")
    bench.sql("ANALYZE")
    session = open_session(bench.url, "forgetful")
    with closing(session), session_transaction(session) as cursor:
        values = {"age": AGE, "limit": forget.BATCH, "after": START}
        cursor.execute(f"EXPLAIN {retention._FORGET_TASKS}", values)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Seq Scan" not in plan
    assert "hashed SubPlan" not in plan
    for alias, index in {"a": "pk_tasks", "r": "ix_tasks_request_id"}.items():
        assert f"Index Scan using {index} on tasks {alias}" in plan


def test_what_somebody_holds_is_left_for_the_next_time(bench: Bench) -> None:
    held, free = bench.claimed(), bench.claimed()
    for claim in (held, free):
        bench.settle(claim, Completed("1"))
    bench.pass_time(2 * AGE)
    with bench.transaction() as cursor:
        cursor.execute("SELECT FROM tasks WHERE task_id = %s FOR UPDATE", (held.task_id,))
        assert forgotten(bench) == 1
    assert known(bench) == {held.task_id}


def test_it_goes_on_by_batches_and_rests_when_nothing_is_old(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget, "BATCH", 2)
    for _ in range(5):
        bench.settle(bench.claimed(), Completed("1"))
    bench.pass_time(2 * AGE)
    session, clock = open_session(bench.url, "forgetful"), Clock()
    forgetting = Forgetting(AGE, clock)
    assert [forgetting.step(session) for _ in range(2)] == [5, 0]
    bench.settle(bench.claimed(), Completed("1"))
    bench.pass_time(2 * AGE)
    assert forgetting.step(session) == 0
    clock.now += forget.REST
    assert forgetting.step(session) == 1
    session.close()


def test_it_leaves_the_rest_of_what_is_old_for_the_next_round(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forget, "BATCH", 2)
    for _ in range(8):
        bench.settle(bench.claimed(), Completed("1"))
    bench.pass_time(2 * AGE)
    session = open_session(bench.url, "forgetful")
    forgetting = Forgetting(AGE, Hurrying())
    assert [forgetting.step(session) for _ in range(4)] == [4, 4, 0, 0]
    session.close()


class Hurrying(Clock):
    """Passes some of what may be spent, whenever somebody looks: two batches begin in time."""

    def __call__(self) -> float:
        self.now += forget.SPENDS * 0.4
        return self.now


def test_lives_that_ended_long_ago_are_forgotten_too(bench: Bench) -> None:
    said_so, killed, hung = (bench.agent(name) for name in ("said so", "killed", "hung"))
    with session_transaction(said_so.session) as cursor:
        agents.leave(cursor, said_so.incarnation)
    bench.lose(said_so)
    bench.lose(killed)
    bench.pass_time(2 * AGE)
    bench.lose(bench.agent("killed a moment ago"))
    bench.agent("new")
    forgotten(bench)
    assert {name for (name,) in bench.sql("SELECT agent_id FROM agents")} == {"hung", "killed a moment ago", "new"}
    hung.die()
