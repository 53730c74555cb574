"""A program of its own that has Celery and Chiffon's result backend, and nothing else of Chiffon.

Run as ``python -m tests.e2e.bare_celery_client BROKER BACKEND DIARY``; it prints what it got, as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from celery import Celery, chain, chord, group
from celery.canvas import Signature

WORK = {"exchange": "work", "routing_key": "work_queue"}
"""Where the agents listen. (By ``queue="work_queue"`` Celery would declare the queue anew, without its arguments.)"""

PATIENCE = 60  # seconds for each result


class BareClient:
    """An application as any user of Celery has one."""

    def __init__(self, broker: str, backend: str, diary: str) -> None:
        self.app = Celery("client", broker=broker, backend=backend)
        self._diary = diary

    def echo(self, *value: Any) -> Signature:
        """The signature of an `echo`; without a value it echoes what the step before it returned."""
        return self.app.signature("echo", args=value, options=WORK)

    def append(self, note: Any) -> Signature:
        """The signature of a `test.append`."""
        return self.app.signature("test.append", kwargs={"path": self._diary, "note": note}, options=WORK)

    def fail(self, message: str) -> Signature:
        """The signature of a `fail`."""
        return self.app.signature("fail", kwargs={"message": message}, immutable=True, options=WORK)

    def use_everything(self) -> dict[str, Any]:
        """Do what clients of Celery do; return what came of it."""
        sent = self.app.send_task("echo", kwargs={"input": "by name"}, priority=5, **WORK)
        later = self.app.send_task("echo", args=["in a second"], countdown=1, **WORK)
        failed = self.fail("no").apply_async()
        broken = chain(self.echo("kept"), self.fail("broken"), self.append("never")).apply_async()
        parts = group(self.append(number) for number in range(5)).apply_async()
        steps = chain(self.echo("a"), self.echo(), self.echo()).apply_async()
        gathered = chord([self.echo(number) for number in range(3)], self.echo()).apply_async()
        nested = chain(self.echo("first"), group(self.echo(), self.echo()), self.echo()).apply_async()
        return {
            "send_task": sent.get(timeout=PATIENCE),
            "state": self.app.AsyncResult(sent.id).state,
            "countdown": later.get(timeout=PATIENCE),
            "failure": str(failed.get(timeout=PATIENCE, propagate=False)),
            "failed_state": failed.state,
            "broken_chain": str(broken.get(timeout=PATIENCE, propagate=False)),
            "before_the_break": broken.parent.parent.get(timeout=PATIENCE),
            "group": [part["note"] for part in parts.get(timeout=PATIENCE)],
            "chain": steps.get(timeout=PATIENCE),
            "first_of_the_chain": steps.parent.parent.get(timeout=PATIENCE),
            "chord": gathered.get(timeout=PATIENCE),
            "nested": nested.get(timeout=PATIENCE),
            "unknown": self.app.AsyncResult("nobody-has-sent-this").state,
            "sent": [sent.id, later.id, failed.id],
            "rooms_of_the_agent": sorted(name for name in sys.modules if name.startswith("chiffon.agent.")),
        }


if __name__ == "__main__":
    print(json.dumps(BareClient(*sys.argv[1:]).use_everything()))
