"""Dead letters: what was meant to die lies in `dlx_queue`, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator

from tests.chaos.audit.excuses import wiped_since
from tests.chaos.audit.findings import Finding
from tests.chaos.evidence import Evidence, Task

DEAD = frozenset({"failed", "dead_lettered"})

_ACROSS_A_KILL = 20.0
"""Seconds before a broker's death in which a rejected message may have been on its way: on classic queues
dead-lettering is at most once across that, which is a limit that is stated."""


def the_dead_have_letters(evidence: Evidence) -> Iterator[Finding]:
    """Each task that died has its letter, unless the broker was wiped since, or somebody took it.

    What takes another's end has none of its own.
    """
    for task in evidence.tasks.values():
        if task.status not in DEAD or task.follows or _may_be_taken(evidence, task):
            continue
        died = task.finished_at or 0.0
        if evidence.letters.tasks[task.task_id] or wiped_since(evidence, died):
            continue
        if not evidence.executions.get(task.task_id) and _has_died_as_garbage(evidence, task):
            continue
        yield Finding("lost", task.task_id, f"{task.work_type} is {task.status}, and has no dead letter")


def letters_are_of_the_dead(evidence: Evidence) -> Iterator[Finding]:
    """Each letter is of a task that died once, or of garbage."""
    for task_id in evidence.letters.tasks:
        if not any(step.status in DEAD for step in evidence.history.get(task_id, [])):
            status = _status(evidence.tasks.get(task_id))
            yield Finding("wrong", task_id, f"lies in dlx_queue, and the task is {status}")
    for letter in evidence.letters.strange:
        yield Finding("wrong", "letter", f"nobody knows this dead letter: {letter}")


def garbage_is_kept(evidence: Evidence) -> Iterator[Finding]:
    """Whatever bytes arrived lie in `dlx_queue`."""
    for thrown in evidence.thrown:
        excused = wiped_since(evidence, thrown.at) or _killed_soon(evidence, thrown.at)
        if thrown.confirmed and not evidence.letters.garbage[thrown.name] and not excused:
            yield Finding("lost", thrown.name, f"garbage ({thrown.what}) is gone")


def _may_be_taken(evidence: Evidence, task: Task) -> bool:
    """Whether somebody had a hand in its letter after it died; who got no answer may have had it at any time."""
    return any(
        said.task_id == task.task_id
        and said.verb in {"discard_letter", "replay_letter"}
        and (said.code is None or said.at >= (task.finished_at or 0.0))
        for said in evidence.promises.said
    )


def _has_died_as_garbage(evidence: Evidence, task: Task) -> bool:
    """Whether its letter is the very message that it was condemned for, or that one's loss is excused."""
    return task.task_id in evidence.letters.named_by_garbage or _killed_soon(evidence, task.finished_at or 0.0)


def _killed_soon(evidence: Evidence, at: float) -> bool:
    return any(i.kind == "broker_kill" and at <= (i.ended or at) and i.began <= at + _ACROSS_A_KILL
               for i in evidence.incidents)  # fmt: skip


def _status(task: Task | None) -> str:
    return "in no ledger" if task is None else task.status
