"""Every task in exactly one end, and in one that it can have come to."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tests.chaos.audit.allowance import RETRIES
from tests.chaos.audit.excuses import PUBLISHERS, ended_by_its_work, no_broker, wiped_since
from tests.chaos.audit.findings import Finding
from tests.chaos.evidence import ENDS, Evidence, Step, Task

_LAWFUL = {
    "scheduled": {"pending", "cancelled", "expired"},
    "pending": {"queued", "running"} | ENDS,
    "queued": {"running", "pending"} | ENDS,
    "running": ENDS - {"expired"} | {"retrying", "pending", "running"},
    "retrying": {"pending", "running", "cancelled", "expired", "dead_lettered"},
}
"""The steps that the contract allows; an end is left by a replay only."""


def accepted_has_a_row(evidence: Evidence) -> Iterator[Finding]:
    """What was accepted is in the ledger."""
    for task_id in evidence.promises.ids():
        if task_id not in evidence.tasks:
            yield Finding("lost", task_id, "was accepted, and the ledger does not have it")


def sent_has_a_row(evidence: Evidence) -> Iterator[Finding]:
    """What the broker confirmed is in the ledger, unless the broker was wiped afterwards: a limit that is stated."""
    known = {sent.task_id for sent in evidence.promises.sent if sent.confirmed} - evidence.tasks.keys()
    for task_id in known:
        last = max(sent.at for sent in evidence.promises.sent if sent.task_id == task_id and sent.confirmed)
        if not wiped_since(evidence, last):
            yield Finding("lost", task_id, "was published and confirmed, and the ledger does not have it")


def every_row_has_ended(evidence: Evidence) -> Iterator[Finding]:
    """Nothing is under way any more."""
    for task in evidence.tasks.values():
        if task.status not in ENDS:
            yield Finding("stuck", task.task_id, f"{task.work_type} is {task.status}, and nothing happens")
        elif task.dead_letter_owed:
            yield Finding("stuck", task.task_id, f"{task.work_type} is {task.status}, and its dead letter is owed")
    for request_id, task_id in evidence.keys_in_flight.items():
        if (task := evidence.tasks.get(task_id)) is None or task.status in ENDS:
            yield Finding("stuck", task_id, f"the key {request_id} is held as if it were in flight")


def nothing_is_left(evidence: Evidence) -> Iterator[Finding]:
    """The queue is empty, every agent listens, and after every fault work went on."""
    if evidence.left_in_queue:
        yield Finding("stuck", "work_queue", f"{evidence.left_in_queue} messages are left")
    if evidence.deaf_agents > 0:
        yield Finding("stuck", "agents", f"{evidence.deaf_agents} do not consume")
    for fault, seconds in evidence.pulses:
        if seconds is None:
            yield Finding("stuck", fault, "no work was done in the time after it")


def no_surprises(evidence: Evidence) -> Iterator[Finding]:
    """The API gave no answer that it must not give, and gave one."""
    for surprise in evidence.promises.surprises:
        yield Finding("wrong", "surprise", surprise)
    for order in evidence.promises.given_up:
        yield Finding("wrong", order.request_id, "the API did not answer at all")


def nobody_ends_by_himself(evidence: Evidence) -> Iterator[Finding]:
    """No program ends but by what was done to it, or by the work that runs in its own process."""
    for incident in evidence.incidents:
        if incident.kind == "exit" and not ended_by_its_work(evidence, incident):
            yield Finding("wrong", incident.target, f"ended by itself: {incident.detail}")
        if incident.kind == "agent_kill" and "left behind" in incident.detail:
            yield Finding("wrong", incident.target, f"was killed, and processes went on: {incident.detail}")


def ends_fit(evidence: Evidence) -> Iterator[Finding]:
    """Each end is one that this work can come to."""
    cancelled = {said.task_id for said in evidence.promises.said if said.verb == "cancel"}
    for task in evidence.tasks.values():
        if task.status not in ENDS or not task.work_type.startswith(("chaos.", "chiffon.")) or task.follows:
            continue
        allowed = _ends_of(task) | ({"cancelled"} if task.task_id in cancelled else set())
        if task.status not in allowed | _forced(evidence, task):
            yield Finding("wrong", task.task_id, f"{task.work_type} {task.parameters} is {task.status}")


def cancelled_stays_cancelled(evidence: Evidence) -> Iterator[Finding]:
    """Whoever was told that a task has ended as cancelled was told the truth."""
    for said in evidence.promises.said:
        if (said.verb, said.code) != ("cancel", 200):
            continue
        steps = evidence.history.get(said.task_id, [])
        if not any(step.status == "cancelled" and step.at <= said.at + 0.1 for step in steps):
            yield Finding("wrong", said.task_id, "the API said that it was cancelled, and it was not")


def steps_are_lawful(evidence: Evidence) -> Iterator[Finding]:
    """No end is left but by a replay, each step is one of the contract's, and none is missing."""
    for task_id, steps in evidence.history.items():
        if [step.number for step in steps] != list(range(1, len(steps) + 1)):
            yield Finding("wrong", task_id, f"its history has the numbers {[step.number for step in steps]}")
        for before, after in itertools.pairwise(steps):
            if not _is_lawful(before, after):
                yield Finding("wrong", task_id, f"went from {before.status} to {after.status} ({after.detail})")


def _is_lawful(before: Step, after: Step) -> bool:
    if after.is_replay:
        return before.status in ENDS - {"completed"} and after.status == "pending"
    return after.status in _LAWFUL.get(before.status, ())


def _ends_of(task: Task) -> set[str]:
    match task.work_type:
        case "chaos.flaky":
            return {"completed"} if task.parameters["failures"] <= RETRIES["chaos.flaky"] else {"failed"}
        case "chaos.fail" | "chaos.broken_step":
            return {"failed"}
        case "chaos.die":
            return {"dead_lettered"} if task.parameters["times"] > 2 else {"completed"}
        case "chaos.note":
            return {"completed", "expired"}
        case "chiffon.unreadable":
            return {"dead_lettered"}
        case _:
            return {"completed"}


def _forced(evidence: Evidence, task: Task) -> set[str]:
    """What faults may have made of it: who is often enough beside a death is taken for its cause."""
    executions = evidence.executions.get(task.task_id, [])
    started = [e for e in executions if e.started_at is not None]
    crashed = [e for e in started if e.outcome == "crashed"]
    ends = {"dead_lettered"} if len(crashed) >= 3 or len(started) >= 9 else set[str]()
    if task.work_type in PUBLISHERS and any(no_broker(evidence, e) for e in executions):
        ends |= {"failed", "timed_out"}
    return ends
