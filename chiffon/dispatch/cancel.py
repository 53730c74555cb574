"""Cancel: queued work ends at once, running work is asked to stop."""

from __future__ import annotations

from enum import Enum

from chiffon.domain.errors import TaskNotFound, WrongState
from chiffon.domain.states import State
from chiffon.ledger import control
from chiffon.ledger.connect import Ledger

_RACES = 5


class Cancelling(Enum):
    """What a cancel did: the task has ended, or its agent was asked."""

    ENDED = "ended"
    ASKED = "asked"


def cancel(ledger: Ledger, task_id: str, *, ttl: float) -> Cancelling:
    """Cancel a task. Repeating it is harmless.

    Raises:
        TaskNotFound: there is none.
        WrongState: it has ended otherwise.
        LedgerUnavailable: nothing is known to have happened.
    """
    for _ in range(_RACES):  # between two looks it may have started, or come back to wait
        with ledger.transaction() as cursor:
            if control.cancel_waiting(cursor, task_id, ttl=ttl):
                return Cancelling.ENDED
            control.ask_to_stop(cursor, task_id)
            found = control.status(cursor, task_id)
        if found is None:
            raise TaskNotFound(f"there is no task {task_id}")
        status, asked = found
        if status == State.CANCELLED:
            return Cancelling.ENDED
        if status == State.RUNNING and asked:
            return Cancelling.ASKED
        if status in {State.COMPLETED, State.FAILED, State.TIMED_OUT, State.EXPIRED, State.DEAD_LETTERED}:
            raise WrongState(f"task {task_id} has already ended: it is {status}")
    raise WrongState(f"task {task_id} changes too fast to be cancelled: try again")
