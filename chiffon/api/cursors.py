"""The cursor of a list: opaque to callers, the keyset (created_at, task_id) to us."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

from chiffon.api import kinds
from chiffon.api.problems import ApiProblem, Fault
from chiffon.domain.errors import InvalidInput
from chiffon.domain.ids import is_task_id
from chiffon.domain.values import canonical, parse

Place = tuple[datetime, str]


def written(place: Place) -> str:
    """The cursor that stands for ``place``."""
    return base64.urlsafe_b64encode(canonical([place[0].isoformat(), place[1]]).encode()).decode().rstrip("=")


def read(cursor: str) -> Place:
    """The place that a cursor stands for. Raises ApiProblem."""
    try:
        moment, task_id = parse(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        at = datetime.fromisoformat(moment)
        if at.tzinfo is None or not isinstance(task_id, str) or not is_task_id(task_id):
            raise ValueError(cursor)
    except (ValueError, TypeError, binascii.Error, InvalidInput):
        what = "is none that this API gave: leave it out to begin at the newest"
        raise ApiProblem(kinds.INVALID_INPUT, f"cursor: {what}", [Fault(parameter="cursor", detail=what)]) from None
    return at, task_id
