"""Watch: tell a caller of each step of a task, from those that the ledger has on to its end."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from chiffon.dispatch.find import check_task_id
from chiffon.domain.errors import LedgerUnavailable, TaskNotFound
from chiffon.domain.views import TaskSteps
from chiffon.ledger import queries
from chiffon.ledger.connect import Ledger
from chiffon.ledger.listener import listener_at

logger = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds between two looks at the ledger, which tells of ends by itself."""

_SOME = 500
"""Steps that are read at once: a task that is retried for weeks has many."""

_NOTHING_NEW = TaskSteps((), None, is_over=False)


class Watcher:
    """Watches tasks on behalf of many threads at once. ``listener_url`` must not lead through a transaction pooler."""

    def __init__(self, ledger: Ledger, listener_url: str) -> None:
        self._ledger = ledger
        self._listener = listener_at(listener_url)

    def look(self, task_id: str, *, after: int) -> TaskSteps:
        """Its steps numbered higher than ``after``, as far as there are. Raises TaskNotFound, LedgerUnavailable."""
        check_task_id(task_id)
        with self._ledger.transaction() as cursor:
            found = queries.steps(cursor, task_id, after=after, limit=_SOME)
        if found is None:
            raise TaskNotFound(f"there is no task {task_id}")
        return found

    def watch(self, task_id: str, *, after: int) -> Iterator[TaskSteps]:
        """Look again and again, until the task has ended or is removed.

        Also what is not new is told: so the caller has a say at least every ``PAUSE`` seconds. A ledger that is away
        has nothing new.
        """
        with self._listener.subscribe([task_id]) as news:
            is_away = False
            while True:
                try:
                    found = self.look(task_id, after=after)
                    is_away = False
                except TaskNotFound:
                    return
                except LedgerUnavailable as error:
                    if not is_away:
                        logger.warning("cannot watch task %s, looking again: %s", task_id, error)
                    found, is_away = _NOTHING_NEW, True
                yield found
                if found.is_over:
                    return
                if found.steps:
                    after = found.steps[-1].number
                if len(found.steps) < _SOME:
                    news.wait(PAUSE)
