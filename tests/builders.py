"""Values that tests need many of, each with everything made up that the test does not name."""

from __future__ import annotations

from typing import Any

from chiffon.domain import ids
from chiffon.domain.idempotency import fingerprint
from chiffon.domain.tasks import NewTask
from chiffon.domain.verdicts import WorkError


def new_task(**fields: Any) -> NewTask:
    """A task to be written down: an echo. Its fingerprint is that of its work type and parameters."""
    said: dict[str, Any] = {
        "task_id": ids.new_task_id(),
        "request_id": ids.new_request_id(),
        "trace_id": ids.new_trace_id(),
        "work_type": "echo",
        "parameters": {"input": "hello"},
    } | fields
    return NewTask(**{"fingerprint": fingerprint(said["work_type"], said["parameters"])} | said)


def an_error(message: str = "it broke", type: str = "ValueError", **fields: Any) -> WorkError:  # noqa: A002
    """What went wrong."""
    return WorkError(type, message, **fields)
