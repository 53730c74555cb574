"""Twins: tasks of one batch that share a ``task_id`` or ``request_id``, of which one statement can take one only."""

from __future__ import annotations

from collections.abc import Sequence

from chiffon.domain.tasks import Acceptance, Accepted, Duplicate, IdTaken, KeyReused, NewTask
from chiffon.ledger.accept import accept_many
from chiffon.ledger.connect import Cursor


def accept_in_order(cursor: Cursor, tasks: Sequence[NewTask], *, lease: float) -> tuple[list[Acceptance], set[str]]:
    """As `accept_many`, of tasks that may be twins: each has the answer that it would have had by itself, in order."""
    fates: dict[int, Acceptance] = {}
    pending: set[str] = set()
    left = list(range(len(tasks)))
    while left:
        first_of = _firsts(tasks, left)
        firsts = [index for index in left if first_of[index] == index]
        found, more = accept_many(cursor, [tasks[index] for index in firsts], lease=lease)
        fates.update(zip(firsts, found, strict=True))
        pending |= more
        for index in set(left).difference(firsts):
            first = first_of[index]
            if (fate := _twin(tasks[index], tasks[first], fates.get(first))) is not None:
                fates[index] = fate
        left = [index for index in left if index not in fates]
    return [fates[index] for index in range(len(tasks))], pending


def _firsts(tasks: Sequence[NewTask], indexes: Sequence[int]) -> dict[int, int]:
    """For each index that of the earliest with the same ``task_id``, or else ``request_id``; its own without one."""
    earliest: dict[tuple[str, str], int] = {}
    found = {}
    for index in indexes:
        names = (("task", tasks[index].task_id), ("request", tasks[index].request_id))
        found[index] = next((earliest[name] for name in names if name in earliest), index)
        for name in names:
            earliest.setdefault(name, index)
    return found


def _twin(task: NewTask, first: NewTask, fate: Acceptance | None) -> Acceptance | None:
    """What becomes of a twin of ``first``, which has met that fate or none yet; None: the ledger has to be asked.

    An id that its caller chose may be that of yet another task. What was not taken holds nothing for its twin.
    """
    same_work = task.fingerprint == first.fingerprint
    if isinstance(fate, Accepted) and (task.fresh or task.task_id == first.task_id):
        if same_work:
            return Duplicate(first.task_id)
        return IdTaken(first.task_id) if task.task_id == first.task_id else KeyReused(first.task_id)
    if task.fresh and first.fresh:  # then it is the key alone that somebody else may have
        return fate if same_work else KeyReused(fate.task_id) if isinstance(fate, Duplicate) else None
    return None
