"""What an end sets off: each step of a chain and each part of a chord, once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.chaos.audit.findings import Finding
from tests.chaos.evidence import Evidence, Task


def canvas_goes_on_once(evidence: Evidence) -> Iterator[Finding]:
    """Of what a task started there is all, once; of what no execution settled there is nothing."""
    by_key: dict[str, list[Task]] = defaultdict(list)
    for task in evidence.tasks.values():
        if task.work_type.startswith("chaos.") and (key := task.parameters.get("key")):
            by_key[key].append(task)
    for task in evidence.tasks.values():
        if task.work_type not in {"chaos.chain", "chaos.chord"}:
            continue
        found = Counter(_name(step) for step in by_key[task.task_id])
        wanted = _wanted(task, by_key[task.task_id], evidence) if task.status == "completed" else Counter[str]()
        for name in found.keys() | wanted.keys():
            if found[name] > wanted[name]:
                yield Finding("doubled", task.task_id, f"{name}: {found[name]} of them, not {wanted[name]}")
            elif found[name] < wanted[name]:
                yield Finding("lost", task.task_id, f"{name}: {found[name]} of them, not {wanted[name]}")
    yield from _chords_have_all(evidence)


def _chords_have_all(evidence: Evidence) -> Iterator[Finding]:
    for task in evidence.tasks.values():
        if task.work_type != "chaos.gather" or task.status != "completed":
            continue
        starter = evidence.tasks.get(task.parameters["key"])
        wanted = list(range(1, starter.parameters["parts"] + 1)) if starter else []
        if task.result["numbers"] != wanted:
            yield Finding("wrong", task.task_id, f"the chord's body was given {task.result['numbers']}, not {wanted}")


def _name(task: Task) -> str:
    return f"{task.work_type} {task.parameters.get('number', '')}".strip()


def _wanted(task: Task, started: list[Task], evidence: Evidence) -> Counter[str]:
    if task.work_type == "chaos.chord":
        parts = range(1, task.parameters["parts"] + 1)
        return Counter([*(f"chaos.step {number}" for number in parts), "chaos.gather"])
    if not task.parameters["broken"]:
        return Counter(f"chaos.step {number}" for number in range(1, task.parameters["steps"] + 1))
    broken = [step.task_id for step in started if step.work_type == "chaos.broken_step"]
    failures = sum(step.status == "failed" for task_id in broken for step in evidence.history[task_id])
    return Counter({"chaos.step 1": 1, "chaos.broken_step": 1, "chaos.errback": failures})
