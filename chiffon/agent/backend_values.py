"""What Celery hands over to be kept, as the JSON text that the ledger takes; and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from celery.result import GroupResult
from celery.utils.saferepr import saferepr
from kombu.exceptions import EncodeError
from kombu.serialization import dumps
from kombu.utils.json import loads

from chiffon.domain.errors import InvalidValue
from chiffon.domain.values import MAX_DEPTH, check_value, parse

_ROOM = MAX_DEPTH - 20
"""Levels of JSON that parents may take up; the rest is left to the groups that are in groups."""


def encoded(value: object) -> str:
    """JSON text that the ledger can keep. kombu's own types (dates, UUIDs, decimals, bytes) are said as kombu does.

    Raises:
        EncodeError: there is none. It is the error that makes Celery record a FAILURE which says so.
    """
    with suppress(InvalidValue):
        check_value(value)
        return json.dumps(value)  # as kombu writes what needs no words of its own
    text: str = dumps(value, serializer="json")[2]
    try:
        parse(text)  # Python's json lets through what jsonb refuses
    except InvalidValue as error:
        raise EncodeError(f"a result must be JSON that Postgres can keep, and this one is not: {error}") from error
    return text


def decoded(text: str | None) -> Any:
    """The value that `encoded` was given, lists for tuples; None for None."""
    return None if text is None else loads(text)


def tree_of(result: Any, room: int = _ROOM) -> Any:
    """The results in ``result`` as Celery's own ``as_tuple`` writes them, without the parents that lie too deep.

    Each lies two levels below its child: of a long chain nobody could keep the last one's result with all of them.
    """
    nodes = [tree_of(each, room - 2) for each in result.results] if isinstance(result, GroupResult) else None
    parent = result.parent if room > 0 else None
    return (result.id, parent and tree_of(parent, room - 2)), nodes


def encodable(value: object) -> object:
    """``value``, or words for it if it cannot be encoded: what only accompanies a result must not spoil it."""
    try:
        encoded(value)
    except EncodeError:
        return clean(saferepr(value))
    return value


def encoded_members(members: Mapping[str, Any]) -> str | None:
    """JSON text of the members, words in the place of those that have none; None if there are no members."""
    if not members:
        return None
    try:
        return encoded(dict(members))
    except EncodeError:
        return encoded({clean(str(name)): encodable(value) for name, value in members.items()})


def clean(text: str) -> str:
    """Text that Postgres can keep: NUL and lone surrogates are written as escapes."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()
