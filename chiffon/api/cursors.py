"""The cursor of a list: opaque to callers; to us, what the last item of the page before is found by."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from uuid import UUID

from chiffon.api import kinds
from chiffon.api.problems import ApiProblem, Fault
from chiffon.domain.errors import InvalidInput
from chiffon.domain.ids import is_task_id
from chiffon.domain.values import canonical, parse

Place = tuple[datetime, str]
"""A task's, in the order of their list: created_at, task_id."""


def written(place: Place) -> str:
    """The cursor that stands for ``place``."""
    return _opaque(canonical([place[0].isoformat(), place[1]]).encode())


def read(cursor: str) -> Place:
    """The place that a cursor stands for. Raises ApiProblem."""
    try:
        moment, task_id = parse(_clear(cursor))
        at = datetime.fromisoformat(moment)
        if at.tzinfo is None or not isinstance(task_id, str) or not is_task_id(task_id):
            raise ValueError(cursor)
    except (ValueError, TypeError, binascii.Error, InvalidInput):
        raise _refused("is none that this API gave: leave it out to begin at the newest") from None
    return at, task_id


def written_letter(letter_id: str) -> str:
    """The cursor that stands for a dead letter."""
    return _opaque(UUID(letter_id).bytes)


def read_letter(cursor: str) -> str:
    """The id of the dead letter that a cursor stands for. Raises ApiProblem."""
    try:
        return str(UUID(bytes=_clear(cursor)))
    except (ValueError, binascii.Error):
        raise _refused("is none that this API gave: leave it out to begin at the oldest") from None


def gone() -> ApiProblem:
    """The letter that a cursor stands for was replayed or discarded, or is one of another list."""
    return _refused("the letter that it named is gone from this list: begin anew, without it")


def _opaque(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _clear(cursor: str) -> bytes:
    return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)


def _refused(what: str) -> ApiProblem:
    return ApiProblem(kinds.INVALID_INPUT, f"cursor: {what}", [Fault(parameter="cursor", detail=what)])
