"""A seed says everything that is done, the same each time."""

from __future__ import annotations

from tests.chaos.faults.library import library
from tests.chaos.faults.messages import Rubbish
from tests.chaos.plan import KINDS, PROGRAMS, make_plan, way

SHORT = {"tasks": 400, "minutes": 3.0, "faults": 25}


def test_a_seed_replays_its_plan() -> None:
    assert make_plan(7, **SHORT) == make_plan(7, **SHORT)


def test_another_seed_has_another_plan() -> None:
    one, other = make_plan(7, **SHORT), make_plan(8, **SHORT)
    assert one.faults != other.faults
    assert one.errands != other.errands


def test_there_are_as_many_tasks_and_faults_as_were_asked_for() -> None:
    plan = make_plan(7, **SHORT)
    assert len(plan.orders) == 400
    assert len(plan.faults) == 25


def test_each_order_has_a_request_id_of_its_own() -> None:
    names = [order.request_id for order in make_plan(7, **SHORT).orders]
    assert len(set(names)) == len(names)


def test_everything_begins_within_the_time() -> None:
    plan = make_plan(7, **SHORT)
    times = [fault.at for fault in plan.faults] + [errand.at for client in plan.errands for errand in client]
    assert min(times) >= 0
    assert max(times) <= plan.seconds


def test_every_kind_of_fault_has_its_turn() -> None:
    deck = sum(kind.share for kind in KINDS)
    plan = make_plan(7, tasks=1, minutes=1.0, faults=deck)
    assert {fault.kind for fault in plan.faults} == {kind.name for kind in KINDS}


def test_the_library_has_every_kind_and_no_other() -> None:
    assert set(library(Rubbish())) == {kind.name for kind in KINDS}


def test_a_fault_of_a_way_names_the_service_that_it_keeps_from_whom() -> None:
    plan = make_plan(7, tasks=1, minutes=1.0, faults=200)
    ways = [way(fault) for fault in plan.faults if fault.kind in {"cut", "silence", "swallow_commit", "half_open"}]
    assert set(ways) == {"broker", "postgres"}
    assert all(f.target in PROGRAMS for f in plan.faults if f.kind == "cut")
