"""The few calls of the API that the demo makes, waiting included."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, TypeVar

import requests

from chiffon.devstack import unproxied
from chiffon.devstack.errors import DevstackError
from chiffon.devstack.programs import Access

Task: TypeAlias = dict[str, Any]
"""A task as `GET /tasks/{task_id}` shows it."""

Letter: TypeAlias = dict[str, Any]
"""A dead letter as `GET /dead-letters` lists it."""

T = TypeVar("T")

ENDS = {"completed", "failed", "cancelled", "timed_out", "expired", "dead_lettered"}
PATIENCE = 60.0
"""Seconds that anything may take."""


class ApiClient:
    """Speaks HTTP to a stack; what it does not expect is a DevstackError."""

    def __init__(self, access: Access) -> None:
        self._url = access.api_url
        self._session = unproxied.session()
        self._session.headers.update(access.headers)

    def dispatch(self, body: Mapping[str, Any]) -> str:
        """Dispatch a task; return its id."""
        return str(self._call("POST", "/dispatch", 202, body)["task_id"])

    def wait_for_end(self, task_id: str, *, executions: int = 1) -> Task:
        """Return the task once it has ended and been run ``executions`` times."""

        def ended() -> Task | None:
            task: Task = self._call("GET", f"/tasks/{task_id}", 200)
            return task if task["status"] in ENDS and len(task["executions"]) >= executions else None

        return _wait_for(f"task {task_id} to end", ended)

    def wait_for_dead_letter(self, task_id: str, *, after: Letter | None = None) -> Letter:
        """Return the task's dead letter once there is one, which is not the one ``after`` which it comes."""

        def found() -> Letter | None:
            letters = self._call("GET", "/dead-letters", 200)["items"]
            return next((letter for letter in letters if letter["task_id"] == task_id and letter != after), None)

        return _wait_for(f"the dead letter of task {task_id}", found)

    def replay_dead_letter(self, letter: Letter) -> None:
        """Have the work of a dead letter done again."""
        self._call("POST", "/dead-letters/replay", 202, {"ids": [letter["id"]]})

    def _call(self, method: str, path: str, expected: int, body: Mapping[str, Any] | None = None) -> Any:
        try:
            answer = self._session.request(method, self._url + path, json=body, timeout=30)
        except requests.RequestException as error:
            raise DevstackError(f"{method} {path}: the API does not answer ({error})") from error
        if answer.status_code != expected:
            raise DevstackError(f"{method} {path} answered {answer.status_code}, not {expected}: {answer.text[:2000]}")
        return answer.json()


def _wait_for(what: str, look: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.1)
    raise DevstackError(f"waited {PATIENCE:g} s for {what}")
