"""What enters the ledger beside a claim or a settlement: work born of messages, and what an end sets off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from chiffon.agent.reading import Direct, Doorbell, Reader
from chiffon.agent.run import ChordPart, Report
from chiffon.config import Settings
from chiffon.dispatch.submit import first_ring
from chiffon.domain import ids
from chiffon.domain.idempotency import fingerprint
from chiffon.domain.tasks import Accepted, Duplicate, IdTaken, KeyReused, NewTask, Ring
from chiffon.domain.verdicts import WorkError
from chiffon.ledger import results
from chiffon.ledger.accept import accept
from chiffon.ledger.condemn import condemn
from chiffon.ledger.connect import Cursor
from chiffon.ledger.follow import follow

log = structlog.get_logger(__name__)

RELEASE_CHORD = "chiffon.release_chord"
"""The work type that goes on with a chord's body once its header is complete."""


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
    # The lease is long: the message is here, and if this agent dies it is delivered again.
    fates, pending = accept(cursor, born, lease=settings.ring_lease * 4)
    for task, fate in zip(born, fates, strict=True):
        match fate:
            case Duplicate(first) if first != task.task_id:
                follow(cursor, task, first)
            case KeyReused(holder):
                refused[task.task_id] = (
                    f"its request_id belongs to task {holder}, of another work type or with other parameters"
                )
            case IdTaken(task_id):
                # What runs is the row, never the message.
                log.warning(
                    "message_differs_from_row",
                    task_id=task_id,
                    request_id=task.request_id,
                    trace_id=task.trace_id,
                )
            case Accepted() | Duplicate():
                pass
    return refused, {d.task.task_id: first_ring(d.task) for d in direct if d.anonymous and d.task.task_id in pending}


def bear_condemned(cursor: Cursor, task: NewTask, reason: str, settings: Settings) -> None:
    """Write down, as dead-lettered, the task of a message that nobody can run. A task of that id is left as it is."""
    fates, _ = accept(cursor, [task], lease=settings.ring_lease)
    if isinstance(fates[0], Accepted):
        error = WorkError("DeadLettered", reason, "chiffon")
        condemn(cursor, task.task_id, error, owed=False, ttl=settings.idempotency_ttl)


@dataclass(frozen=True)
class Ending:
    """A run that has just been settled, for what it sets off. ``task_id``, ``trace_id``: of its task."""

    report: Report
    task_id: str
    trace_id: str


def write(cursor: Cursor, endings: Sequence[Ending], *, reader: Reader, lease: float) -> list[Ring]:
    """Write down what ends set off, in the commit that settles them; the rings that are the caller's.

    Raises LostRace, RefusedData.
    """
    following: dict[str, NewTask] = {}
    for ending in endings:
        for side in ending.report.side_results:
            results.store(cursor, side)
        for draft in ending.report.drafts:
            try:
                task = reader.from_draft(draft, trace_id=ending.trace_id, parent=ending.task_id)
            except Exception:  # it costs itself only
                log.exception("continuation_refused", task_id=ending.task_id, trace_id=ending.trace_id)
            else:
                following.setdefault(task.task_id, task)
    for task in _released(cursor, endings):
        following.setdefault(task.task_id, task)
    if not following:
        return []
    _, pending = accept(cursor, list(following.values()), lease=lease)
    return [first_ring(following[task_id]) for task_id in pending]


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
        request_id=task_id,
        trace_id=trace_id,
        work_type=RELEASE_CHORD,
        fingerprint=fingerprint(RELEASE_CHORD, part.group_id),
        parameters=parameters,
        canvas={"root_id": part.callback.get("options", {}).get("root_id") or task_id, "parent_id": parent},
        keyed=False,
        origin="canvas",
    )
