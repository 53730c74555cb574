"""What happened to a task, in order: `python -m tests.chaos.timeline FOLDER [TASK...]`, with the rules applied anew.

``FOLDER`` is what a run has left. Without a task: everything that the rules find in the evidence now.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.audit.rules import audit
from tests.chaos.evidence import Evidence

EVIDENCE = "evidence.pickle"


def save(evidence: Evidence | None, folder: Path) -> None:
    """Keep the evidence of a run."""
    (folder / EVIDENCE).write_bytes(pickle.dumps(evidence))


def timeline(evidence: Evidence, task_id: str) -> Iterator[str]:
    """Each moment of a task, as a line: the ledger's steps, the runs, and what was done to anybody meanwhile."""
    moments = list(_moments(evidence, task_id))
    if not moments:
        return
    first = min(at for at, _ in moments)
    last = max(at for at, _ in moments)
    moments += [(i.began, f"    [{i}]") for i in evidence.incidents if i.touches(first, last)]
    for at, what in sorted(moments):
        yield f"{at - first:9.3f}  {what}"


def _moments(evidence: Evidence, task_id: str) -> Iterator[tuple[float, str]]:
    for step in evidence.history.get(task_id, []):
        yield step.at, f"ledger: {step.status} {step.execution or ''} {step.detail or ''}"
    for execution in evidence.executions.get(task_id, []):
        agent = evidence.program_of(execution.agent_pid, execution.claimed_at)
        yield execution.claimed_at, f"execution {execution.execution} claimed by {agent} ({execution.agent_pid})"
        if execution.finished_at is not None:
            yield execution.finished_at, f"execution {execution.execution} finished: {execution.outcome}"
    for run in evidence.runs.get(task_id, []):
        agent = evidence.program_of(run.agent, run.began)
        yield run.began, f"run {run.execution} begins in {agent} ({run.agent}, pid {run.pid}) {run.step}"
        yield run.last, f"run {run.execution} {'ends' if run.ended else 'is seen for the last time'}"
    for said in evidence.promises.said:
        if said.task_id == task_id:
            yield said.at, f"client: {said.verb} was answered {said.code}"
    for promise in evidence.promises.accepted:
        if promise.task_id == task_id:
            yield promise.at, f"client: accepted, asked {promise.asked} times, duplicate {promise.duplicate}"


def main() -> None:
    """Print it."""
    evidence: Evidence = pickle.loads((Path(sys.argv[1]) / EVIDENCE).read_bytes())  # noqa: S301 -- our own
    wanted = sys.argv[2:]
    for finding in audit(evidence):
        if not wanted:
            print(f"{finding.fault}: {finding.about}: {finding.says}")
    for task_id in wanted:
        print(evidence.tasks.get(task_id), *timeline(evidence, task_id), sep="\n")


if __name__ == "__main__":
    main()
