"""A client of Celery's canvas: an application that has the broker, Chiffon's result backend, and no work of its own."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.canvas import Signature

from tests.e2e.diary import Diary

WORK = {"exchange": "work", "routing_key": "work_queue"}
"""Where the agents listen."""


class CanvasClient:
    """Makes signatures whose runs write into ``diary``. None takes what the step before it returned."""

    def __init__(self, broker_url: str, ledger_url: str, diary: Diary) -> None:
        self.app = Celery("canvas", broker=broker_url, backend=f"chiffon+{ledger_url}", set_as_current=False)
        self._diary = diary

    def append(self, note: str) -> Signature:
        """A `test.append`."""
        return self._signature("test.append", note=note)

    def run(self, seconds: float) -> Signature:
        """A `test.run`."""
        return self._signature("test.run", seconds=seconds)

    def die(self, how: str) -> Signature:
        """A `test.die`."""
        return self._signature("test.die", how=how)

    def _signature(self, name: str, **parameters: Any) -> Signature:
        parameters["path"] = str(self._diary.path)
        return self.app.signature(name, kwargs=parameters, immutable=True, options=dict(WORK))

    def close(self) -> None:
        """Let go of the broker."""
        self.app.close()
