"""Wait: hold a caller until a task has ended."""

from __future__ import annotations

import logging
import time

from chiffon.domain.errors import LedgerUnavailable
from chiffon.domain.states import ENDS
from chiffon.domain.views import TaskView
from chiffon.ledger.connect import Ledger
from chiffon.ledger.listener import listener_at
from chiffon.ledger.queries import task as read_task

logger = logging.getLogger(__name__)


class Waiter:
    """Waits for tasks on behalf of many threads at once: they share the ledger's pool and one session that LISTENs.

    ``listener_url`` must not lead through a transaction pooler.
    """

    def __init__(self, ledger: Ledger, listener_url: str) -> None:
        self._ledger = ledger
        self._listener = listener_at(listener_url)

    def wait(self, task_id: str, timeout: float) -> TaskView | None:
        """The task as soon as it has ended, or as it stands after ``timeout`` seconds; None if there is none.

        A ledger that goes away meanwhile only makes the wait longer.

        Raises:
            LedgerUnavailable: the ledger did not answer the first question.
        """
        deadline = time.monotonic() + timeout
        view = self._read(task_id)
        if view is None or view.status in ENDS or timeout <= 0:
            return view
        with self._listener.subscribe([task_id]) as news:
            while True:
                view = self._read_or_keep(task_id, view)  # the first time too: it may have ended since the look above
                left = deadline - time.monotonic()
                if view is None or view.status in ENDS or left <= 0:
                    return view
                news.wait(left)

    def _read(self, task_id: str) -> TaskView | None:
        with self._ledger.transaction() as cursor:
            return read_task(cursor, task_id)

    def _read_or_keep(self, task_id: str, view: TaskView) -> TaskView | None:
        try:
            return self._read(task_id)
        except LedgerUnavailable as error:
            logger.warning("cannot look at task %s, looking again: %s", task_id, error)
            return view
