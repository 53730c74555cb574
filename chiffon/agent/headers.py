"""The headers of Celery's protocol 2, from a claimed row: what runs is the row, never the message."""

from __future__ import annotations

from typing import Any

from chiffon.domain.tasks import Claim


def protocol2_headers(
    claim: Claim, shown: tuple[str, str], limits: tuple[float | None, float | None]
) -> dict[str, Any]:
    """``shown``: arguments and parameters, redacted, for logs and events. ``limits``: hard and soft, in seconds."""
    canvas = claim.canvas
    return {
        "lang": "py",
        "task": claim.work_type,
        "id": claim.task_id,
        "root_id": canvas.get("root_id") or claim.task_id,
        "parent_id": canvas.get("parent_id"),
        "group": canvas.get("group"),
        "retries": claim.retries,
        "timelimit": list(limits),
        "argsrepr": shown[0],
        "kwargsrepr": shown[1],
        "eta": None,
        "expires": None,
        "request_id": claim.request_id,
        "trace_id": claim.trace_id,
        **(canvas.get("headers") or {}),
    }
