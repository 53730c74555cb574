"""Replay: open an ended task again."""

from __future__ import annotations

from chiffon.domain.errors import TaskNotFound, WrongState
from chiffon.domain.tasks import Ring
from chiffon.ledger import control
from chiffon.ledger.condemn import UNREADABLE
from chiffon.ledger.connect import Ledger


def replay(ledger: Ledger, task_id: str, *, lease: float) -> Ring:
    """Make an ended task `pending` again, under the same id, its counters anew; the ring that is the caller's.

    Raises:
        TaskNotFound: there is none.
        WrongState: it is no replayable end, its request_id has been taken by another task since, or its message could
            not be read, so that nobody knows what it was to do.
        LedgerUnavailable: nothing is known to have happened.
    """
    with ledger.transaction() as cursor:
        ring = control.replay(cursor, task_id, lease=lease)
        if ring is not None:
            if ring.work_type == UNREADABLE:
                raise WrongState(
                    f"what task {task_id} was to do could not be read: mend and replay its dead letter instead"
                )
            if not control.take_key_again(cursor, task_id):
                raise WrongState(
                    f"the request_id of task {task_id} belongs to another task, which GET /tasks?request_id=... shows: "
                    "replay that one, if it has to be, or dispatch the work under a request_id of its own"
                )
            return ring
        found = control.status(cursor, task_id)
    if found is None:
        raise TaskNotFound(f"there is no task {task_id}")
    raise WrongState(
        f"task {task_id} is {found[0]}: only failed, cancelled, timed_out, expired and dead_lettered replay"
    )
