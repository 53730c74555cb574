"""What enters the ledger beside a claim or a settlement: work born of messages, and what an end sets off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from chiffon.agent.backend_values import clean
from chiffon.agent.reading import Direct, Doorbell, Reader
from chiffon.agent.run import ChordPart, Draft, Report
from chiffon.config import Settings
from chiffon.dispatch.submit import first_ring
from chiffon.domain import ids
from chiffon.domain.idempotency import fingerprint
from chiffon.domain.tasks import Acceptance, Accepted, Duplicate, IdTaken, KeyReused, NewTask, Ring
from chiffon.domain.verdicts import WorkError
from chiffon.ledger import groups, results
from chiffon.ledger.accept import accept
from chiffon.ledger.condemn import UNREADABLE, condemn, make_way
from chiffon.ledger.connect import Cursor
from chiffon.ledger.effects import RELEASE_CHORD, release_request_id
from chiffon.ledger.failures import LostRace
from chiffon.ledger.follow import follow

log = structlog.get_logger(__name__)


def bear(
    cursor: Cursor, deliveries: Sequence[Doorbell | Direct], settings: Settings
) -> tuple[dict[str, str], dict[str, Ring]]:
    """Write down what was published directly, before it is claimed.

    No two deliveries of one task or request_id. Raises LostRace, RefusedData.

    Returns:
        By task id, why some of it is refused; and the rings of what is not to be claimed now: a message without any
        id, delivered again, would be taken for another, so it is acknowledged once its row is there, and rung anew.
    """
    direct = [delivery for delivery in deliveries if isinstance(delivery, Direct)]
    if not direct:
        return {}, {}
    born = [delivery.task for delivery in direct]
    refused = {}
    make_way(cursor, [task.task_id for task in born])
    fates, pending = accept(cursor, born, lease=birth_lease(settings))
    for task, fate in zip(born, fates, strict=True):
        match fate:
            case Duplicate(first) if first != task.task_id:
                _follow(cursor, task, first)
            case KeyReused(holder):
                refused[task.task_id] = (
                    f"its request_id belongs to task {holder}, of another work type or with other parameters"
                )
            case IdTaken():
                warn_of_difference(task)
            case Accepted() | Duplicate():
                pass
    return refused, {d.task.task_id: first_ring(d.task) for d in direct if d.anonymous and d.task.task_id in pending}


def birth_lease(settings: Settings) -> float:
    """Seconds until the sweeper rings for work that was born of a message: long, for if this agent dies the message is
    delivered again.
    """
    return settings.ring_lease * 4


def warn_of_difference(task: NewTask) -> None:
    """Say that a message's task is there already, and is another: what runs is the row, never the message."""
    log.warning("message_differs_from_row", task_id=task.task_id, request_id=task.request_id, trace_id=task.trace_id)


def bear_condemned(cursor: Cursor, task: NewTask, reason: str, settings: Settings) -> None:
    """Write down, as dead-lettered, the task of a message that nobody can run. A task of that id is left as it is."""
    task = replace(task, delay=None, run_at=None, expires_in=None, expires_at=None)  # it ends now
    [fate], _ = accept(cursor, [task], lease=settings.ring_lease)
    if not isinstance(fate, Accepted) and fate.task_id != task.task_id:  # another task has its request_id
        [fate], _ = accept(cursor, [replace(task, keyed=False)], lease=settings.ring_lease)
    if isinstance(fate, Accepted):
        error = WorkError("DeadLettered", clean(reason)[:1000], "chiffon")
        condemn(cursor, task.task_id, error, owed=False, ttl=settings.idempotency_ttl)


@dataclass(frozen=True)
class Ending:
    """A run that has just been settled, for what it sets off. ``task_id``, ``trace_id``: of its task."""

    report: Report
    task_id: str
    trace_id: str


@dataclass(frozen=True)
class _Refusal:
    """A step that cannot be taken as it was meant, and why: its row says so, for whoever waits for it."""

    task: NewTask
    reason: str


def write(cursor: Cursor, endings: Sequence[Ending], *, reader: Reader, settings: Settings) -> list[Ring]:
    """Write down what ends set off, in the commit that settles them; the rings that are the caller's.

    Raises LostRace, RefusedData.
    """
    following, refusals = _drafted(endings, reader)
    for ending in endings:
        for side in ending.report.side_results:
            results.store(cursor, side)
    _begin_chords(cursor, endings)
    following += _released(cursor, endings)
    rings = []
    for tasks in _without_twins(following):
        fates, pending = accept(cursor, tasks, lease=settings.ring_lease)
        rings += [first_ring(task) for task in tasks if task.task_id in pending]
        for task, fate in zip(tasks, fates, strict=True):
            if (refusal := _joined(cursor, task, fate)) is not None:
                refusals.append(refusal)
    for refusal in refusals:
        _dead_letter(cursor, refusal, settings)
    return rings


def _begin_chords(cursor: Cursor, endings: Sequence[Ending]) -> None:
    """Have the chords that come next wait for their parts, which are born in this commit."""
    begun = {chord.group_id: chord.tree for ending in endings for chord in ending.report.chords}
    sizes = {group_id: size for ending in endings for group_id, size in ending.report.chord_sizes.items()}
    for group_id in sorted(begun):
        groups.begin_chord(cursor, group_id, begun[group_id])
    for group_id in sorted(sizes):
        results.size_chord(cursor, group_id, sizes[group_id])


def _drafted(endings: Sequence[Ending], reader: Reader) -> tuple[list[NewTask], list[_Refusal]]:
    tasks, refusals = [], []
    for ending in endings:
        for draft in ending.report.drafts:
            try:
                tasks.append(reader.from_draft(draft, trace_id=ending.trace_id, parent=ending.task_id))
            except Exception as error:  # noqa: BLE001 -- whatever is wrong with it, it costs itself only
                refusals.append(_Refusal(_remains(draft, ending, reader), f"it cannot be published: {error}"))
    return tasks, refusals


def _remains(draft: Draft, ending: Ending, reader: Reader) -> NewTask:
    """What can be said of a task that cannot be read: its name and place in the canvas if possible, or a new id."""
    headers: dict[str, Any] = {
        name: draft.headers[name] for name in ("id", "task", "root_id", "group") if name in draft.headers
    }
    bare = Draft(headers, [], {}, draft.embed, priority=None, routing_key=None)
    try:
        return reader.from_draft(bare, trace_id=ending.trace_id, parent=ending.task_id)
    except Exception:  # noqa: BLE001 -- as above
        task_id = ids.new_task_id()
        return NewTask(
            task_id=task_id,
            request_id=task_id,
            trace_id=ending.trace_id,
            work_type=UNREADABLE,
            fingerprint=fingerprint(UNREADABLE, None),
            canvas={"parent_id": ending.task_id},
            keyed=False,
            origin="canvas",
        )


def _without_twins(tasks: Sequence[NewTask]) -> list[list[NewTask]]:
    """The tasks in batches, in each of which no two have the same ``task_id`` or idempotency key."""
    batches: list[tuple[set[str], list[NewTask]]] = []
    for task in tasks:
        names = {f"task {task.task_id}", *([f"request {task.request_id}"] if task.keyed else [])}
        fitting = next((batch for batch in batches if not batch[0] & names), None)
        if fitting is None:
            batches.append((names, [task]))
        else:
            fitting[0].update(names)
            fitting[1].append(task)
    return [batch for _, batch in batches]


def _joined(cursor: Cursor, task: NewTask, fate: Acceptance) -> _Refusal | None:
    """Have a step whose ``request_id`` another task holds take that one's end; why it cannot be taken at all."""
    match fate:
        case Duplicate(first) if first != task.task_id:
            _follow(cursor, task, first)
        case KeyReused(holder):
            return _Refusal(
                task, f"its request_id belongs to task {holder}, of another work type or with other parameters"
            )
        case IdTaken(task_id):
            another = replace(task, task_id=ids.new_task_id())
            return _Refusal(another, f"its id {task_id} belongs to a task with another payload")
    return None


def _follow(cursor: Cursor, task: NewTask, first: str) -> None:
    """Have a task take the end of another. Raises LostRace: without a row of its own nobody would know of it."""
    if follow(cursor, task, first) is None:
        raise LostRace(f"the id {task.task_id} was taken in between, or {first} was forgotten")


def _dead_letter(cursor: Cursor, refusal: _Refusal, settings: Settings) -> None:
    task = replace(refusal.task, keyed=False, delay=None, run_at=None, expires_in=None, expires_at=None)
    reason = clean(refusal.reason)[:1000]
    log.error(
        "continuation_refused",
        task_id=task.task_id,
        request_id=task.request_id,
        trace_id=task.trace_id,
        reason=reason,
    )
    fates, _ = accept(cursor, [task], lease=settings.ring_lease)
    if isinstance(fates[0], Accepted):
        error = WorkError("DeadLettered", reason, "chiffon")
        condemn(cursor, task.task_id, error, owed=True, ttl=settings.idempotency_ttl)


def _released(cursor: Cursor, endings: Sequence[Ending]) -> list[NewTask]:
    """The tasks that go on with the chords which these ends complete. All are counted at once, in one order."""
    parts = [(part, ending) for ending in endings for part in ending.report.chord_parts]
    if not parts:
        return []
    found = results.finish_parts(
        cursor, [results.Part(part.group_id, part.task_id, part.status, part.size) for part, _ in parts]
    )
    by_group = {part.group_id: (part, ending) for part, ending in parts}
    return [_release(by_group[g][0], by_group[g][1].trace_id, by_group[g][1].task_id) for g in sorted(found)]


def _release(part: ChordPart, trace_id: str, parent: str) -> NewTask:
    parameters = {"group_id": part.group_id, "callback": part.callback}
    task_id = ids.derived_id("chord", part.group_id)
    return NewTask(
        task_id=task_id,
        request_id=release_request_id(part.group_id),
        trace_id=trace_id,
        work_type=RELEASE_CHORD,
        fingerprint=fingerprint(RELEASE_CHORD, part.group_id),
        parameters=parameters,
        canvas={"root_id": part.callback.get("options", {}).get("root_id") or task_id, "parent_id": parent},
        keyed=False,
        origin="canvas",
    )
