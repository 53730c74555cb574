"""An HTTP client as any user has one: requests, the API key, and the paths of the contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import requests

from tests.e2e.waiting import PATIENCE, eventually

Json: TypeAlias = dict[str, Any]

ENDS = frozenset({"completed", "failed", "cancelled", "timed_out", "expired", "dead_lettered"})
"""The ends that the contract names; not taken from the product, which might be wrong about them."""


@dataclass(frozen=True)
class HttpClient:
    """Speaks to the API at ``url``; may be shared by threads."""

    url: str
    key: str

    def post(self, path: str, body: Mapping[str, Any] | None = None, **headers: str) -> requests.Response:
        """POST JSON. ``headers``: with ``_`` where their names have ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(self.url + path, json=body, headers=self._authorized | named, timeout=90)

    def get(self, path: str, **query: str | int) -> Json:
        """GET what must be there."""
        answer = requests.get(self.url + path, params=query, headers=self._authorized, timeout=30)
        assert answer.status_code == 200, f"GET {path} answered {answer.status_code}: {answer.text}"
        found: Json = answer.json()
        return found

    def dispatch(self, work_type: str, parameters: Mapping[str, Any], **fields: Any) -> str:
        """Dispatch new work, which must be accepted; return its task id."""
        answer = self.post("/dispatch", {"work_type": work_type, "parameters": parameters, **fields})
        assert answer.status_code == 202, f"POST /dispatch answered {answer.status_code}: {answer.text}"
        return str(answer.json()["task_id"])

    def dispatch_many(self, orders: Sequence[tuple[str, Mapping[str, Any]]], **fields: Any) -> list[str]:
        """Dispatch work (types with their parameters) in one commit; all must be accepted. Return the task ids."""
        tasks = [{"work_type": work_type, "parameters": parameters, **fields} for work_type, parameters in orders]
        answer = self.post("/dispatch/batch", {"tasks": tasks})
        assert answer.status_code == 202, f"POST /dispatch/batch answered {answer.status_code}: {answer.text}"
        items = answer.json()["items"]
        assert {item["code"] for item in items} == {202}, items
        return [str(item["task_id"]) for item in items]

    def task(self, task_id: str) -> Json:
        """Show a task."""
        return self.get(f"/tasks/{task_id}")

    def wait_for(self, task_id: str, *statuses: str, within: float = PATIENCE) -> Json:
        """Return the task once it has one of ``statuses``. Fails when it ends otherwise."""

        def there() -> Json | None:
            task = self.task(task_id)
            assert task["status"] in statuses or task["status"] not in ENDS, f"it ended otherwise: {task}"
            return task if task["status"] in statuses else None

        found = eventually(f"task {task_id} to be {' or '.join(statuses)}", there, within=within)
        assert found is not None
        return found

    def queue(self, name: str = "work_queue") -> Json:
        """What `GET /queues` says of one queue."""
        return next(queue for queue in self.get("/queues")["items"] if queue["queue"] == name)

    def agent(self, agent_id: str) -> Json:
        """What `GET /agents/{agent_id}` says."""
        return self.get(f"/agents/{agent_id}")

    @property
    def _authorized(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}
