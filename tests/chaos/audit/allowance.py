"""How often a task may have run between two replays: what is beyond that needs somebody's death to excuse it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tests.chaos.audit.excuses import disturbed
from tests.chaos.audit.findings import Finding
from tests.chaos.evidence import Evidence, Execution
from tests.chaos.stand import MAX_CRASHES

RETRIES = {"chaos.flaky": 3, "chaos.chain": 8, "chaos.chord": 8}
"""Of the work that has any, as `tests.chaos.work.deeds` says."""

_DEATHS = 3 * MAX_CRASHES
"""Deaths of a whole agent, in whose middle a task was, until the task is taken for their cause."""

_OWN = frozenset({"completed", "failed", "timed_out", "cancelled", "dead_lettered", "retried"})
"""Outcomes that a run has by itself: each is one of its task's attempts."""


def runs_are_within_their_allowance(evidence: Evidence) -> Iterator[Finding]:
    """The side-effect file has no more runs of a task than its retries, its crashes and its agents' deaths allow.

    That each crash, death and return was caused by something is another rule's.
    """
    for task_id, runs in evidence.runs.items():
        task = evidence.tasks.get(task_id)
        if task is None or not task.work_type.startswith("chaos."):
            continue
        replays = [step.at for step in evidence.history.get(task_id, []) if step.is_replay]
        lives: dict[int, Counter[str]] = {}
        for run in runs:
            execution = evidence.execution(task_id, run.execution)
            if execution is not None:
                life = sum(at <= execution.claimed_at for at in replays)
                lives.setdefault(life, Counter())[_charge(execution)] += 1
        allowed = {"run": 1 + RETRIES.get(task.work_type, 0), "crash": MAX_CRASHES, "death": _DEATHS}
        for charges in lives.values():
            if over := [f"{charges[name]} {name}(s), not {most}" for name, most in allowed.items()
                        if charges[name] > most]:  # fmt: skip
                yield Finding("doubled", task_id, f"{task.work_type} {task.parameters} ran too often: {over}")


def what_came_back_was_disturbed(evidence: Evidence) -> Iterator[Finding]:
    """No agent gives work back that had begun, unless something was done to it."""
    for task_id, runs in evidence.runs.items():
        for run in runs:
            execution = evidence.execution(task_id, run.execution)
            if execution is None or execution.outcome != "given_back":
                continue
            agent = evidence.program_of(execution.agent_pid, execution.claimed_at)
            if not disturbed(evidence, agent, execution):
                yield Finding("wrong", task_id, f"execution {run.execution} was given back by {agent}, for no reason")


def _charge(execution: Execution) -> str:
    if execution.outcome in _OWN:
        return "run"
    if execution.outcome == "crashed":
        return "crash"
    return "death" if execution.outcome == "agent_lost" and execution.started_at is not None else "excused"
