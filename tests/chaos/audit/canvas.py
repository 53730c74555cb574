"""What an end sets off: each step of a chain, and the body of a chord, once.

What starts a line is published in the middle of a run, and may die with a broker that is wiped: a limit that is stated.
What follows from an end is the ledger's, and may not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from tests.chaos.audit.excuses import wiped_since
from tests.chaos.audit.findings import Finding
from tests.chaos.evidence import Evidence, Run, Task


def lines_go_on_once(evidence: Evidence) -> Iterator[Finding]:
    """Of each chain and chord that was started there is all, once."""
    lines: dict[str, list[Task]] = defaultdict(list)
    for task in evidence.tasks.values():
        if task.work_type.startswith("chaos.") and (key := task.parameters.get("key")):
            lines[key].append(task)
    for task_id, runs in evidence.runs.items():
        starter = evidence.tasks.get(task_id)
        if starter is None or starter.work_type not in {"chaos.chain", "chaos.chord"}:
            continue
        for run in runs:
            found = lines.pop(f"{task_id} {run.execution}", [])
            wanted = _wanted(starter, found, evidence)
            started = {"chaos.step 1"} if starter.work_type == "chaos.chain" else wanted.keys() - {"chaos.gather"}
            may_miss = started if not _was_published(evidence, run) else set[str]()
            yield from _as_wanted(task_id, Counter(map(_name, found)), wanted, may_miss)
    for key, found in lines.items():
        yield Finding("wrong", key, f"{len(found)} steps of a line that no run has started")


def _as_wanted(
    task_id: str, names: Counter[str], wanted: Counter[str], may_miss: AbstractSet[str]
) -> Iterator[Finding]:
    for name in names.keys() | wanted.keys():
        if names[name] > wanted[name]:
            yield Finding("doubled", task_id, f"{name}: {names[name]} of them, not {wanted[name]}")
        elif names[name] < wanted[name] and name not in may_miss:
            yield Finding("lost", task_id, f"{name}: {names[name]} of them, not {wanted[name]}")


def _wanted(starter: Task, found: list[Task], evidence: Evidence) -> Counter[str]:
    """What there should be, given what there is: after each end what it sets off."""
    done = {_name(task) for task in found if task.status == "completed"}
    wanted: Counter[str] = Counter()
    if starter.work_type == "chaos.chord":
        parts = [f"chaos.step {number}" for number in range(1, starter.parameters["parts"] + 1)]
        wanted.update(parts)
        wanted["chaos.gather"] = int(done >= set(parts))
        return wanted
    wanted["chaos.step 1"] = 1
    if starter.parameters["broken"]:
        broken = [task.task_id for task in found if task.work_type == "chaos.broken_step"]
        failures = sum(step.status == "failed" for task_id in broken for step in evidence.history[task_id])
        wanted.update({"chaos.broken_step": int("chaos.step 1" in done), "chaos.errback": failures})
        return wanted
    for number in range(2, starter.parameters["steps"] + 1):
        wanted[f"chaos.step {number}"] = int(f"chaos.step {number - 1}" in done)
    return wanted


def chords_have_all(evidence: Evidence) -> Iterator[Finding]:
    """The body of a chord is given the results of all parts, in their order."""
    for task in evidence.tasks.values():
        if task.work_type != "chaos.gather" or task.status != "completed":
            continue
        starter = evidence.tasks.get(task.parameters["key"].partition(" ")[0])
        wanted = list(range(1, starter.parameters["parts"] + 1)) if starter else []
        if task.result["numbers"] != wanted:
            yield Finding("wrong", task.task_id, f"the chord's body was given {task.result['numbers']}, not {wanted}")


def _was_published(evidence: Evidence, run: Run) -> bool:
    """Whether what a run started must have arrived: the run came to its end, and the broker kept what it had."""
    return run.ended and not wiped_since(evidence, run.began)


def _name(task: Task) -> str:
    return f"{task.work_type} {task.parameters.get('number', '')}".strip()
