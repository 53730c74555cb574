"""A steady load: a client that dispatches at its own pace, whatever happens to everybody else."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.waiting import eventually


class SteadyLoad:
    """Dispatches one task after the other, as a context manager. ``every``: seconds between two.

    ``ahead``: how many it dispatches at once when it begins, so that something always waits.
    ``accepted``: the ids of what the API has answered with 202. Anything else that it answers fails the scenario.
    """

    def __init__(
        self, api: HttpClient, work_type: str, parameters: Mapping[str, Any], *, every: float = 0.1, ahead: int = 0
    ) -> None:
        self._api = api
        self._order = work_type, parameters
        self._every = every
        self._ahead = ahead
        self._over = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="steady load", daemon=True)
        self.accepted: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(60)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            if self._ahead:
                self.accepted += self._api.dispatch_many([self._order] * self._ahead)
            while not self._over.wait(self._every):
                self.accepted.append(self._api.dispatch(*self._order))
        except BaseException as failure:  # noqa: BLE001 -- told to who waits for the end
            self._error = failure


def assert_each_was_done_once(load: SteadyLoad, ledger: LedgerReader, diary: Diary) -> None:
    """Wait until everything has ended, without a call by anyone."""
    many = len(load.accepted)
    eventually("everything to be done", lambda: ledger.statuses() == {"completed": many}, within=60)
    assert diary.has_each_once(load.accepted)
    assert ledger.count("executions") == many
