"""The audit sees what must not be: each rule, on evidence made by hand. An audit that is blind proves nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from chiffon.bus.letters import DOORBELL
from tests.chaos.audit.rules import audit
from tests.chaos.audit.takeovers import takeovers
from tests.chaos.evidence import Evidence, Execution, Letters, Run, Step, Task, sorted_out
from tests.chaos.faults.messages import GARBAGE_HEADER, Thrown
from tests.chaos.incidents import Incident
from tests.chaos.plan import Order
from tests.chaos.programs import Life
from tests.chaos.promises import Promises, Said, Sent
from tests.e2e.raw_amqp import Delivery

ORDER = Order("r1", "chaos.note", {"seconds": 1.0})
DONE = Task(
    "t1", "r1", "chaos.note", "completed", {"seconds": 1.0}, "http", 1, None, False, None, 100.0, 102.0,
    {"execution": 1, "agent": 10},
)  # fmt: skip
EXECUTED = Execution("t1", 1, 5, 10, 101.0, 101.0, 102.0, "completed")
HISTORY = [
    Step("t1", 1, 100.0, "pending", None, "accepted"),
    Step("t1", 2, 101.0, "running", 1, None),
    Step("t1", 3, 102.0, "completed", 1, None),
]
RAN = Run("t1", 1, 5, 10, 11, "", 101.0, 102.0, ended=True)
REPLAYED = Step("t1", 4, 103.0, "pending", None, "replayed")


def evidence(**others: Any) -> Evidence:
    """What a run leaves in which one note was accepted, and done by `ash`."""
    promises = Promises()
    promises.accept("t1", ORDER, duplicate=False, asked=1)
    made = Evidence(
        promises=promises,
        tasks={"t1": DONE},
        executions={"t1": [EXECUTED]},
        history={"t1": HISTORY},
        runs={"t1": [RAN]},
        incidents=[],
        lives=[Life("ash", 10, 50.0), Life("birch", 20, 50.0)],
        letters=Letters(),
        thrown=[],
        keys_in_flight={},
        left_in_queue=0,
        deaf_agents=0,
        pulses=[("agent_kill ash", 1.0)],
    )
    return replace(made, **others)


def faults(found: Evidence) -> set[str]:
    """What the audit calls what it finds."""
    return {finding.fault for finding in audit(found)}


def incident(kind: str, target: str, began: float, ended: float, detail: str = "") -> Incident:
    """Something that was done."""
    return Incident(kind, target, detail, began, ended)


def ended_as(status: str, outcome: str, **others: Any) -> dict[str, Any]:
    """The one task with another end."""
    return {
        "tasks": {"t1": replace(DONE, status=status, result=None, **others)},
        "executions": {"t1": [replace(EXECUTED, outcome=outcome)]},
        "history": {"t1": [*HISTORY[:2], replace(HISTORY[2], status=status)]},
    }


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert audit(evidence()) == []


def test_an_accepted_task_without_a_row_is_lost() -> None:
    assert "lost" in faults(evidence(tasks={}))


def test_a_task_without_an_end_is_stuck() -> None:
    assert "stuck" in faults(evidence(tasks={"t1": replace(DONE, status="queued", finished_at=None)}))


def test_a_debt_that_is_not_paid_is_stuck() -> None:
    assert "stuck" in faults(evidence(tasks={"t1": replace(DONE, dead_letter_owed=True)}))


def test_a_key_in_flight_for_an_ended_task_is_stuck() -> None:
    assert "stuck" in faults(evidence(keys_in_flight={"r1": "t1"}))


@pytest.mark.parametrize(
    "left", [{"left_in_queue": 1}, {"deaf_agents": 1}, {"pulses": [("agent_kill ash", None)]}], ids=str
)
def test_what_is_left_is_stuck(left: dict[str, Any]) -> None:
    assert faults(evidence(**left)) == {"stuck"}


def test_an_end_that_this_work_cannot_come_to_is_wrong() -> None:
    assert "wrong" in faults(evidence(**ended_as("failed", "failed"), letters=Letters(Counter(t1=1))))


def test_a_cancelled_end_is_wrong_unless_somebody_cancelled() -> None:
    cancelled = evidence(**ended_as("cancelled", "cancelled"))
    assert faults(cancelled) == {"wrong"}
    cancelled.promises.said.append(Said("cancel", "t1", 202, 101.5))
    assert audit(cancelled) == []


def test_a_cancel_that_was_answered_200_and_did_not_hold_is_wrong() -> None:
    found = evidence()
    found.promises.said.append(Said("cancel", "t1", 200, 101.5))
    assert faults(found) == {"wrong"}


def test_an_end_that_is_left_without_a_replay_is_wrong() -> None:
    again = [*HISTORY, replace(REPLAYED, detail="due"), Step("t1", 5, 104.0, "completed", 1, None)]
    assert "wrong" in faults(evidence(history={"t1": again}))


def test_a_run_that_the_ledger_does_not_know_is_wrong() -> None:
    assert "wrong" in faults(evidence(runs={"t1": [RAN, replace(RAN, execution=2, began=101.0, last=101.0)]}))


@pytest.mark.parametrize("other", [{"incarnation": 6}, {"agent": 20}], ids=str)
def test_a_run_by_another_agent_than_the_one_that_claimed_it_is_wrong(other: dict[str, int]) -> None:
    assert faults(evidence(runs={"t1": [replace(RAN, **other)]})) == {"wrong"}


def test_an_execution_that_ran_twice_is_doubled() -> None:
    assert "doubled" in faults(evidence(runs={"t1": [RAN, replace(RAN, pid=12)]}))


def test_a_result_without_a_run_is_wrong() -> None:
    assert faults(evidence(runs={})) == {"wrong"}


def test_a_result_of_another_execution_than_the_one_that_settled_is_wrong() -> None:
    stale = replace(DONE, result={"execution": 2, "agent": 10})
    assert faults(evidence(tasks={"t1": stale})) == {"wrong"}


def test_a_run_after_the_end_is_doubled() -> None:
    late = replace(RAN, execution=2, began=105.0, last=105.0)
    executed = replace(EXECUTED, execution=2, claimed_at=105.0, finished_at=105.0, outcome="given_back")
    found = evidence(runs={"t1": [RAN, late]}, executions={"t1": [EXECUTED, executed]})
    assert "doubled" in faults(found)


def beside(**incidents: Any) -> Evidence:
    """Two runs of one task, the second begun while the first went on; the second settled."""
    first = replace(EXECUTED, finished_at=103.0, outcome="agent_lost")
    second = Execution("t1", 2, 6, 20, 103.0, 103.0, 104.0, "completed")
    settled = replace(DONE, execution=2, result={"execution": 2, "agent": 20})
    runs = [replace(RAN, last=103.5), Run("t1", 2, 6, 20, 21, "", 103.0, 104.0, ended=True)]
    history = [
        *HISTORY[:2],
        Step("t1", 3, 103.0, "pending", 1, "died"),
        Step("t1", 4, 103.0, "running", 2, None),
        Step("t1", 5, 104.0, "completed", 2, None),
    ]
    return evidence(
        tasks={"t1": settled},
        executions={"t1": [first, second]},
        runs={"t1": runs},
        history={"t1": history},
        **incidents,
    )


def test_a_run_beside_another_is_doubled() -> None:
    assert faults(beside()) == {"doubled", "wrong"}


@pytest.mark.parametrize(("kind", "until"), [("agent_stop", 106.5), ("silence", 103.2), ("refuse", 103.2)])
def test_a_run_beside_one_whose_agent_was_cut_off_is_excused(kind: str, until: float) -> None:
    assert audit(beside(incidents=[incident(kind, "ash", 101.2, until, "postgres")])) == []


@pytest.mark.parametrize("kind", ["postgres_restart", "postgres_stop"])
def test_a_short_stop_is_an_excuse_where_postgres_was_away_a_moment_before(kind: str) -> None:
    stop = incident("agent_stop", "ash", 101.2, 103.2)
    assert audit(beside(incidents=[stop, incident(kind, "postgres", 99.0, 101.0)])) == []
    assert "doubled" in faults(beside(incidents=[stop, incident(kind, "postgres", 80.0, 81.0)]))


@pytest.mark.parametrize(("until", "faults_found"), [(103.2, {"wrong"}), (106.0, {"wrong"}), (106.5, set())])
def test_work_is_taken_from_an_agent_that_is_stopped_only_when_that_is_for_long(
    until: float, faults_found: set[str]
) -> None:
    executions = [replace(EXECUTED, outcome="agent_lost"), replace(EXECUTED, execution=2, claimed_at=102.0)]
    found = evidence(executions={"t1": executions}, incidents=[incident("agent_stop", "ash", 101.2, until)])
    assert {finding.fault for finding in audit(found) if "was taken from" in finding.says} == faults_found


@pytest.mark.parametrize(
    "harmless",
    [
        incident("silence", "ash", 101.2, 103.2, "broker"),
        incident("silence", "birch", 101.2, 102.5, "postgres"),
        incident("postgres_restart", "postgres", 101.2, 103.2),
        incident("cut", "ash", 101.2, 101.2, "postgres"),
        incident("agent_stop", "ash", 90.0, 91.0),
        incident("agent_stop", "ash", 101.2, 103.2),
    ],
    ids=str,
)
def test_it_is_not_excused_by_what_leaves_the_agent_its_ledger(harmless: Incident) -> None:
    assert "doubled" in faults(beside(incidents=[harmless]))


def test_two_settlements_are_doubled() -> None:
    assert "doubled" in faults(evidence(executions={"t1": [EXECUTED, replace(EXECUTED, execution=2)]}))


def test_a_settlement_after_a_replay_is_none_too_many() -> None:
    first = replace(EXECUTED, outcome="failed")
    second = replace(EXECUTED, execution=2, claimed_at=104.0, finished_at=105.0, outcome="failed")
    history = [
        *HISTORY[:2], Step("t1", 3, 102.0, "failed", 1, None), REPLAYED,
        Step("t1", 5, 104.0, "running", 2, None), Step("t1", 6, 105.0, "failed", 2, None),
    ]  # fmt: skip
    found = evidence(
        tasks={"t1": replace(DONE, work_type="chaos.fail", status="failed", execution=2, finished_at=105.0)},
        executions={"t1": [first, second]},
        runs={"t1": [RAN, replace(RAN, execution=2, began=104.0, last=105.0)]},
        history={"t1": history},
        letters=Letters(Counter(t1=1)),
    )
    assert audit(found) == []


@pytest.mark.parametrize("outcome", ["crashed", "agent_lost", "timed_out", "retried"])
def test_an_outcome_that_nobody_caused_is_wrong(outcome: str) -> None:
    executions = [replace(EXECUTED, outcome=outcome), replace(EXECUTED, execution=2, claimed_at=102.0)]
    found = evidence(executions={"t1": executions})
    assert any("execution 1" in finding.says for finding in audit(found))


def test_a_postgres_that_hangs_is_no_reason_to_take_work_away_not_even_when_it_had_just_come_back() -> None:
    executions = [replace(EXECUTED, outcome="agent_lost"), replace(EXECUTED, execution=2, claimed_at=102.0)]
    troubles = [
        incident("postgres_kill", "postgres", 91.0, 101.0),
        incident("postgres_stop", "postgres", 101.5, 108.0),
    ]
    found = evidence(executions={"t1": executions}, incidents=troubles)
    assert {finding.fault for finding in audit(found) if "was taken from" in finding.says} == {"wrong"}


@pytest.mark.parametrize(("cut_at", "faults_found"), [(101.6, set()), (80.0, {"wrong"})])
def test_work_is_taken_over_a_slow_link_only_from_whom_the_session_was_taken_too(
    cut_at: float, faults_found: set[str]
) -> None:
    executions = [replace(EXECUTED, outcome="agent_lost"), replace(EXECUTED, execution=2, claimed_at=102.0)]
    slow = incident("delay", "ash", 101.0, 108.0, "postgres by 0.32 s")
    found = evidence(
        executions={"t1": executions}, incidents=[slow, incident("cut", "ash", cut_at, cut_at, "postgres")]
    )
    assert {finding.fault for finding in audit(found) if "was taken from" in finding.says} == faults_found


@pytest.mark.parametrize(("exited_at", "faults_found"), [(101.3, set()), (140.0, {"wrong"})])
def test_an_agent_that_ends_itself_leaves_what_it_had_just_claimed_to_others_first(
    exited_at: float, faults_found: set[str]
) -> None:
    executions = [replace(EXECUTED, outcome="agent_lost"), replace(EXECUTED, execution=2, claimed_at=102.0)]
    found = evidence(executions={"t1": executions}, incidents=[incident("exit", "ash", exited_at, exited_at)])
    assert {finding.fault for finding in audit(found) if "was taken from" in finding.says} == faults_found


@pytest.mark.parametrize(
    ("code", "started_at", "faults_found"), [("0", None, set()), ("0", 100.5, {"wrong"}), ("-9", 100.5, set())]
)
def test_a_restart_costs_what_was_claimed_no_more_than_a_claim(
    code: str, started_at: float | None, faults_found: set[str]
) -> None:
    lost = replace(EXECUTED, outcome="agent_lost", started_at=started_at)
    restart = replace(incident("agent_restart", "ash", 90.0, 103.0), detail=f"code {code}")
    found = evidence(executions={"t1": [lost, replace(EXECUTED, execution=2, claimed_at=102.0)]}, incidents=[restart])
    assert {finding.fault for finding in audit(found) if "was taken from" in finding.says} == faults_found


def test_two_tasks_of_one_request_are_doubled() -> None:
    twin = replace(DONE, task_id="t2", created_at=110.0)
    assert "doubled" in faults(evidence(tasks={"t1": DONE, "t2": twin}))


def test_a_new_task_of_a_request_whose_time_is_over_is_none_too_many() -> None:
    late = replace(DONE, task_id="t2", created_at=140.0, status="expired", result=None, finished_at=141.0)
    assert audit(evidence(tasks={"t1": DONE, "t2": late})) == []


def dead(**others: Any) -> Evidence:
    """The one task failed, as it was meant to."""
    return evidence(**ended_as("failed", "failed", work_type="chaos.fail"), **others)


def test_a_dead_task_without_a_letter_is_lost() -> None:
    assert faults(dead()) == {"lost"}


def test_a_letter_may_have_gone_with_a_broker_that_was_wiped_since() -> None:
    assert audit(dead(incidents=[incident("broker_wipe", "broker", 103.0, 104.0)])) == []
    assert faults(dead(incidents=[incident("broker_wipe", "broker", 90.0, 95.0)])) == {"lost"}


@pytest.mark.parametrize("work_type", ["echo", "chiffon.unreadable"])
def test_a_task_that_died_without_a_run_has_a_letter_too(work_type: str) -> None:
    condemned = {**ended_as("dead_lettered", "dead_lettered", work_type=work_type), "executions": {}, "runs": {}}
    assert "lost" in faults(evidence(**condemned))
    assert audit(evidence(**condemned, letters=Letters(Counter(t1=1)))) == []
    assert audit(evidence(**condemned, letters=Letters(named_by_garbage={"t1"}))) == []


def test_what_takes_another_s_end_has_no_letter_of_its_own() -> None:
    follower = {**ended_as("failed", "failed", work_type="chaos.fail", follows="t0"), "executions": {}, "runs": {}}
    assert audit(evidence(**follower)) == []


@pytest.mark.parametrize(("at", "code", "found"), [(101.5, 202, {"lost"}), (103.0, 202, set()), (101.5, None, set())])
def test_a_letter_is_taken_only_after_its_task_has_died(at: float, code: int | None, found: set[str]) -> None:
    discarded = dead()
    discarded.promises.said.append(Said("discard_letter", "t1", code, at))
    assert faults(discarded) == found


def ran(work_type: str, *outcomes: str, started: bool = True, **others: Any) -> Evidence:
    """One task whose executions, each a real run, came out so."""
    times = [101.0 + number / 10 for number in range(len(outcomes))]
    executions = [
        Execution("t1", number, 5, 10, at, at if started else None, at, outcome)
        for number, (at, outcome) in enumerate(zip(times, outcomes, strict=True), 1)
    ]
    runs = [replace(RAN, execution=number, began=at, last=at) for number, at in enumerate(times, 1)]
    task = replace(DONE, work_type=work_type, parameters={"failures": 3, "times": 2})
    return evidence(tasks={"t1": task}, executions={"t1": executions}, runs={"t1": runs}, **others)


def says(found: Evidence, words: str) -> bool:
    """Whether the audit finds that."""
    return any(words in finding.says for finding in audit(found))


@pytest.mark.parametrize(
    ("work_type", "outcomes", "is_too_often"),
    [
        ("chaos.flaky", ["retried"] * 3 + ["completed"], False),
        ("chaos.flaky", ["retried"] * 4 + ["completed"], True),
        ("chaos.flaky", ["agent_lost"] * 3 + ["retried"] * 3 + ["completed"], False),
        ("chaos.note", ["completed"], False),
        ("chaos.note", ["given_back", "crashed", "completed"], False),
        ("chaos.note", ["failed", "completed"], True),
        ("chaos.die", ["crashed"] * 3, False),
        ("chaos.die", ["crashed"] * 4, True),
        ("chaos.die", ["agent_lost"] * 9, False),
        ("chaos.die", ["agent_lost"] * 10, True),
    ],
)
def test_a_task_that_runs_more_often_than_it_may_is_doubled(
    work_type: str, outcomes: list[str], is_too_often: bool
) -> None:
    assert says(ran(work_type, *outcomes), "ran too often") == is_too_often


def test_a_replay_gives_a_task_its_allowance_anew() -> None:
    again = replace(REPLAYED, at=101.35)
    found = ran("chaos.die", *["crashed"] * 6, history={"t1": [*HISTORY, again]})
    assert says(found, "4 crash(s)")
    found = ran("chaos.die", *["crashed"] * 6, history={"t1": [*HISTORY, replace(again, at=101.25)]})
    assert not says(found, "ran too often")


def test_work_that_is_given_back_undisturbed_is_wrong() -> None:
    assert says(ran("chaos.note", "given_back", "completed"), "for no reason")
    disturbed = [incident("agent_restart", "ash", 100.0, 103.0)]
    assert not says(ran("chaos.note", "given_back", "completed", incidents=disturbed), "for no reason")


@pytest.mark.parametrize(("detail", "excuses"), [("code 75", True), ("code 0", False)])
def test_an_agent_that_ends_itself_over_a_thread_gives_the_others_back_a_moment_before(
    detail: str, excuses: bool
) -> None:
    given_back = ran("chaos.note", "given_back", "completed")
    ended_at = max(run.finished_at or 0.0 for run in given_back.executions["t1"])
    exits = [incident("exit", "ash", ended_at + 0.2, ended_at + 0.2, detail)]
    found = ran("chaos.note", "given_back", "completed", incidents=exits)
    assert says(found, "for no reason") is not excuses


@pytest.mark.parametrize(("claimed_at", "is_late"), [(106.0, False), (107.0, True)])
def test_work_of_an_agent_that_was_killed_at_rest_is_claimed_soon(claimed_at: float, is_late: bool) -> None:
    lost = replace(EXECUTED, finished_at=104.0, outcome="agent_lost")
    heir = replace(EXECUTED, execution=2, agent_pid=20, claimed_at=claimed_at, finished_at=108.0)
    kill = incident("agent_kill", "ash", 101.5, 110.0, "probe")
    found = evidence(executions={"t1": [lost, heir]}, incidents=[kill])
    assert list(takeovers(found)) == [claimed_at - 101.5]
    assert says(found, "was claimed again only") == is_late


def test_a_letter_of_a_task_that_lives_is_wrong() -> None:
    assert faults(evidence(letters=Letters(Counter(t1=1)))) == {"wrong"}


def test_a_letter_of_a_replayed_task_that_was_garbage_first_is_the_task_s() -> None:
    garbage = Delivery(b"[]", {"id": "t1", GARBAGE_HEADER: "g1"}, {})
    doorbell = replace(garbage, headers=garbage.headers | {DOORBELL: 2})
    assert sorted_out([garbage]) == Letters(garbage=Counter(g1=1), named_by_garbage={"t1"})
    assert sorted_out([doorbell]) == Letters(tasks=Counter(t1=1))


def test_garbage_that_is_gone_is_lost() -> None:
    thrown = [Thrown("g1", "no JSON", 101.0, confirmed=True)]
    assert faults(evidence(thrown=thrown)) == {"lost"}
    assert audit(evidence(thrown=thrown, letters=Letters(garbage=Counter(g1=1)))) == []


def test_a_confirmed_message_without_a_row_is_lost() -> None:
    found = evidence()
    found.promises.sent.append(Sent("t2", ORDER, 101.0, confirmed=True))
    assert faults(found) == {"lost"}


def chain_of(*numbers: int) -> dict[str, Task]:
    """A starter of a chain of two steps, and the steps that there are."""
    starter = replace(DONE, work_type="chaos.chain", parameters={"steps": 2, "broken": False})
    steps = {
        f"s{place}": replace(
            DONE, task_id=f"s{place}", request_id=f"s{place}", work_type="chaos.step",
            parameters={"key": "t1 1", "number": number}, origin="canvas",
        )
        for place, number in enumerate(numbers)
    }  # fmt: skip
    return {"t1": starter, **steps}


@pytest.mark.parametrize(
    ("numbers", "fault"), [((), "lost"), ((1,), "lost"), ((1, 2, 2), "doubled"), ((1, 1, 2), "doubled")]
)
def test_each_step_of_a_chain_is_there_once(numbers: tuple[int, ...], fault: str) -> None:
    about = {(found.fault, found.about) for found in audit(evidence(tasks=chain_of(*numbers)))}
    assert (fault, "t1") in about


def test_the_start_of_a_chain_may_have_gone_with_the_broker_but_not_what_follows() -> None:
    wiped = [incident("broker_wipe", "broker", 101.5, 105.0)]
    assert audit(evidence(tasks=chain_of(), incidents=wiped)) == []
    assert "lost" in faults(evidence(tasks=chain_of(1), incidents=wiped))


def test_steps_that_no_run_has_started_are_wrong() -> None:
    about = {(found.fault, found.about) for found in audit(evidence(tasks=chain_of(1, 2), runs={}))}
    assert ("wrong", "t1 1") in about


def test_a_surprise_is_wrong() -> None:
    found = evidence()
    found.promises.surprises.append("POST /dispatch answered 500")
    assert faults(found) == {"wrong"}


def test_an_agent_that_ends_by_itself_is_wrong() -> None:
    assert faults(evidence(incidents=[incident("exit", "ash", 101.0, 101.0, "code -9")])) == {"wrong"}
    assert faults(evidence(incidents=[incident("exit", "cedar", 101.0, 101.0, "code -9")])) == {"wrong"}


def test_an_agent_whose_work_runs_in_it_may_die_of_that() -> None:
    died = incident("exit", "cedar", 102.0, 102.0, "code -9")
    deadly = replace(DONE, work_type="chaos.die", status="dead_lettered", parameters={"how": "kill", "times": 1000})
    run = replace(RAN, agent=30, ended=False)
    found = evidence(tasks={"t1": deadly}, runs={"t1": [run]}, incidents=[died], lives=[Life("cedar", 30, 50.0)])
    assert not any("by itself" in finding.says for finding in audit(found))
