"""The headers of Celery's protocol 2, from a claimed row: what runs is the row, never the message."""

from __future__ import annotations

from typing import Any

from celery.app.task import Context

from chiffon.domain.tasks import Claim

_FIELDS = frozenset(
    name
    for name, value in vars(Context).items()
    if not (name.startswith("_") or callable(value) or isinstance(value, property))
)
CELERYS = _FIELDS | {"lang", "task", "argsrepr", "kwargsrepr", "compression"}
"""The headers that are Celery's own. Left to itself, it makes this set anew for each task."""

TAKEN = frozenset(dir(Context)) - _FIELDS
"""What a run's context does, or keeps for itself: a header of the sender's by such a name must not take its place."""


def as_fields(headers: dict[str, Any]) -> dict[str, Any]:
    """Headers as a run's context can have them for its own; whoever wants the others asks for the headers."""
    return {name: value for name, value in headers.items() if name not in TAKEN}


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
