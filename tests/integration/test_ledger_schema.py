"""The schema and the state table agree, and the schema makes unlawful rows impossible."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from chiffon.domain.states import BIRTHS, ENDS, STEPS, State
from chiffon.ledger.failures import RefusedData
from tests.bench import Bench


def words(bench: Bench, constraint: str) -> set[str]:
    """The words in quotes in a CHECK, as Postgres has it."""
    ((text,),) = bench.sql("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", constraint)
    return set(re.findall(r"'(\w+)'", text))


def set_columns(bench: Bench, task_id: str, columns: dict[str, Any]) -> None:
    """Change a row past every guard."""
    assignments = ", ".join(f"{name} = %s" for name in columns)
    bench.sql(f"UPDATE tasks SET {assignments} WHERE task_id = %s", *columns.values(), task_id)


def test_the_schema_knows_exactly_the_states_of_the_table(bench: Bench) -> None:
    assert words(bench, "ck_tasks_status_is_known") == set(State)
    assert words(bench, "ck_tasks_an_end_has_a_time") == set(ENDS)


def test_a_task_can_come_to_every_state_by_lawful_steps(bench: Bench) -> None:
    for state, task_id in bench.in_every_state().items():
        walked = [State(status) for status in bench.history(task_id)]
        assert walked[0] in BIRTHS
        assert all(target in STEPS[origin] for origin, target in pairwise(walked))
        assert walked[-1] == state


@pytest.mark.parametrize(
    ("state", "columns"),
    [
        (State.PENDING, {"status": "paused"}),
        (State.PENDING, {"status": "PENDING"}),
        (State.PENDING, {"status": None}),
        (State.PENDING, {"priority": 0}),
        (State.PENDING, {"priority": 6}),
        (State.PENDING, {"trace_id": "xyz"}),
        (State.PENDING, {"trace_id": "A" * 32}),
        (State.PENDING, {"task_id": ""}),
        (State.PENDING, {"request_id": ""}),
        (State.PENDING, {"parameters": "[]"}),
        (State.PENDING, {"arguments": "{}"}),
        (State.PENDING, {"next_ring_at": None}),
        (State.PENDING, {"status": "running", "next_ring_at": None}),
        (State.PENDING, {"status": "queued"}),
        (State.PENDING, {"status": "completed", "next_ring_at": None}),
        (State.PENDING, {"incarnation": 1, "claim_token": "00000000-0000-0000-0000-000000000000"}),
        (State.PENDING, {"finished_at": "now"}),
        (State.RUNNING, {"incarnation": None}),
        (State.RUNNING, {"claim_token": None}),
        (State.RUNNING, {"status": "pending", "next_ring_at": "now"}),
        (State.RUNNING, {"next_ring_at": "now"}),
        (State.SCHEDULED, {"run_at": None}),
        (State.RETRYING, {"run_at": None}),
        (State.COMPLETED, {"finished_at": None}),
        (State.COMPLETED, {"status": "pending", "next_ring_at": "now"}),
        (State.FAILED, {"next_ring_at": "now"}),
    ],
)
def test_an_unlawful_row_is_impossible(bench: Bench, state: State, columns: dict[str, Any]) -> None:
    task_id = bench.task_in(state)
    with pytest.raises(RefusedData):
        set_columns(bench, task_id, columns)
    assert bench.status(task_id) == state


def test_an_execution_with_an_outcome_has_a_time_and_the_other_way_round(bench: Bench) -> None:
    bench.claimed()
    for column, value in (("outcome", "'completed'"), ("finished_at", "now()")):
        with pytest.raises(RefusedData):
            bench.sql(f"UPDATE executions SET {column} = {value}")


def test_results_may_be_kept_for_tasks_that_the_ledger_does_not_have(bench: Bench) -> None:
    bench.sql("INSERT INTO results (task_id, status) VALUES ('foreign', 'SUCCESS')")
    assert bench.sql("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") == [(0,)]
