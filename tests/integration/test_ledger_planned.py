"""Statements that a held session plans once: the same as ever, and soon forgotten where they are of use no longer."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest

from chiffon.dispatch.submit import submit_all
from chiffon.domain.errors import LedgerUnavailable
from chiffon.domain.tasks import Accepted, Claim
from chiffon.ledger import claims, planned, settle
from chiffon.ledger.connect import open_session, session_transaction
from chiffon.ledger.failures import LostRace
from chiffon.ledger.planned import Planned
from tests.bench import LEASE, Agent, Bench
from tests.builders import new_task


def plans(agent: Agent) -> dict[str, object]:
    """What a session has planned, and when."""
    with session_transaction(agent.session) as cursor:
        cursor.execute("SELECT name, prepare_time FROM pg_prepared_statements")
        return dict(cursor.fetchall())


def test_a_held_session_plans_a_statement_once(bench: Bench) -> None:
    agent = bench.agent()
    assert isinstance(agent.claim(bench.born()), Claim)
    made = plans(agent)
    assert "chiffon_claim" in made
    assert isinstance(agent.claim(bench.born()), Claim)
    assert plans(agent) == made


def test_a_plan_is_made_anew_after_a_while_for_tables_grow(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = bench.agent()
    agent.claim(bench.born())
    made = plans(agent)
    monkeypatch.setattr(planned, "GOOD_FOR", 0.0)
    assert isinstance(agent.claim(bench.born()), Claim)
    assert plans(agent)["chiffon_claim"] != made["chiffon_claim"]


ONE = Planned("one", "SELECT %(task_id)s::text")
PLANS = "SELECT count(*) FROM pg_prepared_statements WHERE name = 'chiffon_one'"


@pytest.mark.parametrize("is_own", [True, False])
def test_a_pooled_session_plans_only_if_nobody_else_has_it_a_moment_later(bench: Bench, is_own: bool) -> None:
    with bench.transaction() as cursor:
        cursor.connection.planned = cursor.connection.planned if is_own else None
        ONE.execute(cursor, {"task_id": "a"})
        assert cursor.fetchall() == [("a",)]
        cursor.execute(PLANS)
        assert cursor.fetchall() == [(int(is_own),)]


def test_a_pooled_session_that_was_made_to_forget_its_plans_fails_once(bench: Bench) -> None:
    for _ in range(2):
        with bench.transaction() as cursor:
            ONE.execute(cursor, {"task_id": "a"})
    bench.sql("DEALLOCATE ALL")
    with pytest.raises(LedgerUnavailable), bench.transaction() as cursor:
        ONE.execute(cursor, {"task_id": "a"})
    with bench.transaction() as cursor:
        ONE.execute(cursor, {"task_id": "a"})
        assert cursor.fetchall() == [("a",)]


def test_a_dispatch_whose_session_was_made_to_forget_its_plans_is_accepted(bench: Bench) -> None:
    for _ in range(2):
        submit_all(bench.ledger, [new_task(fresh=True)], lease=LEASE)
    bench.sql("DEALLOCATE ALL")
    task = new_task(fresh=True)
    fates, _ = submit_all(bench.ledger, [task], lease=LEASE)
    assert fates == [Accepted(task.task_id)]


def test_a_session_that_was_made_to_forget_its_plans_is_of_use_no_longer(bench: Bench) -> None:
    agent, task_id = bench.agent(), bench.born()
    agent.claim(bench.born())
    with session_transaction(agent.session) as cursor:
        cursor.execute("DEALLOCATE ALL")
    with pytest.raises(LedgerUnavailable, match="plans"):
        agent.claim(task_id)
    assert isinstance(bench.agent("another").claim(task_id), Claim)


def test_a_session_whose_plan_a_migration_has_outdated_is_of_use_no_longer(bench: Bench) -> None:
    agent, task_id = bench.agent(), bench.born()
    agent.claim(bench.born())
    bench.sql("ALTER TABLE tasks ALTER COLUMN priority TYPE integer")
    with pytest.raises(LedgerUnavailable, match="plans"):
        agent.claim(task_id)
    assert isinstance(bench.agent("another").claim(task_id), Claim)


def test_a_session_that_could_plan_only_half_of_a_statement_plans_it_once_that_is_possible(bench: Bench) -> None:
    agent, task_id = bench.agent(), bench.born()
    with bench.transaction() as migration:
        migration.execute("LOCK TABLE executions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(LostRace):
            agent.claim(task_id)
    assert isinstance(agent.claim(task_id), Claim)


def test_plans_that_could_not_be_made_anew_are_made_once_that_is_possible(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, task_id = bench.agent(), bench.born()
    agent.claim(bench.born())
    monkeypatch.setattr(planned, "GOOD_FOR", 0.0)
    with bench.transaction() as migration:
        migration.execute("LOCK TABLE executions IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(LostRace):
            agent.claim(task_id)
    assert isinstance(agent.claim(task_id), Claim)


def explained(bench: Bench, statement: Planned, values: dict[str, Any]) -> str:
    """How a held session would run a statement."""
    with contextlib.closing(open_session(bench.url, "planner")) as session, session_transaction(session) as cursor:
        statement.execute(cursor, values)
        cursor.execute(f"EXPLAIN {statement._call}", values)
        return "\n".join(line for (line,) in cursor.fetchall())


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        (claims._CLAIM, {"task_ids": [], "tokens": [], "incarnation": 1, "agent_id": "agent"}),
        (settle._SETTLE, {**settle._columns([]), "ttl": 1.0, "max_crashes": 3}),
    ],
    ids=["claim", "settle"],
)
def test_what_is_planned_while_the_tables_are_empty_looks_each_task_up(
    bench: Bench, statement: Planned, values: dict[str, Any]
) -> None:
    plan = explained(bench, statement, values)
    assert "Seq Scan" not in plan
    looked_up = re.findall(r"Index Scan using pk_tasks on tasks\b.*\n\s+Index Cond: \(\(?(?:t\.)?task_id\)?", plan)
    assert len(looked_up) == len(re.findall(r"(?:Scan|Scan using \w+) on tasks\b(?! f)", plan)), plan
