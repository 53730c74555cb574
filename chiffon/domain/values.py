"""Which values the ledger can keep: what Python's json lets in and `jsonb` does not."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from chiffon.domain.errors import InvalidValue, NotJson, Problem

Json = dict[str, Any] | list[Any] | str | int | float | bool | None
"""A JSON value."""

MAX_DEPTH = 100
"""Nesting beyond this is nobody's data; the C stack of more than one parser ends soon after."""

MAX_DIGITS = 1_000
"""Digits of the longest integer: Python refuses to print more than 4,300, `jsonb` keeps far more."""

_TOO_LONG = 10**MAX_DIGITS
_PLAIN = 2**63
_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def check_value(value: object, pointer: str = "") -> None:
    """Raise InvalidValue if `jsonb` cannot keep ``value`` or JSON cannot say it. ``pointer`` names its place."""
    if not _fits(value, MAX_DEPTH):
        _find_fault(value, pointer)


def _fits(value: object, levels: int) -> bool:
    """Whether it is certainly good, as nearly every value is. (To name its places costs many times as much.)"""
    if isinstance(value, str):
        return value.isascii() and "\x00" not in value
    if value is None or isinstance(value, int):
        return value is None or -_PLAIN <= value <= _PLAIN
    if isinstance(value, float):
        return math.isfinite(value)
    if not levels or not isinstance(value, dict | list):
        return False
    if isinstance(value, list):
        return all(_fits(item, levels - 1) for item in value)
    return all(isinstance(key, str) and _fits(key, 0) and _fits(item, levels - 1) for key, item in value.items())


def _find_fault(value: object, pointer: str) -> None:
    """Look at every value inside, with its place."""
    stack: list[tuple[object, str, int]] = [(value, pointer, 0)]
    while stack:
        item, where, depth = stack.pop()
        if depth > MAX_DEPTH:
            _refuse(pointer, f"is nested more than {MAX_DEPTH} deep")
        if isinstance(item, str):
            _check_text(item, where)
        elif isinstance(item, bool) or item is None:
            continue
        elif isinstance(item, int):
            if abs(item) >= _TOO_LONG:
                _refuse(where, f"has more than {MAX_DIGITS} digits")
        elif isinstance(item, float):
            if not math.isfinite(item):
                _refuse(where, f"is {item}, which JSON has no word for")
        elif isinstance(item, dict):
            for key, child in item.items():
                if not isinstance(key, str):
                    _refuse(where, f"has the key {key!r}, which is not text")
                _check_text(key, where)
                stack.append((child, f"{where}/{escape(key)}", depth + 1))
        elif isinstance(item, list | tuple):
            stack.extend((child, f"{where}/{index}", depth + 1) for index, child in enumerate(item))
        else:
            _refuse(where, f"is a {type(item).__name__}, which JSON has no word for")


def escape(key: str) -> str:
    """``key`` as one step of a JSON Pointer (RFC 6901 section 3)."""
    return key.replace("~", "~0").replace("/", "~1")


def pointer_to(path: tuple[str | int, ...]) -> str:
    """The JSON Pointer of a path of keys and indexes."""
    return "".join(f"/{escape(str(step))}" for step in path)


def canonical(value: object) -> str:
    """The one JSON text of ``value``: sorted keys, no spaces."""
    return _CANONICAL.encode(value)


def compact(value: object) -> str:
    """A JSON text of ``value``, without spaces, for a machine."""
    return _COMPACT.encode(value)


def parse(text: str | bytes) -> Any:
    """Parse JSON text strictly.

    Raises:
        NotJson: it is not JSON.
        InvalidValue: it says what the ledger cannot keep, or one name of an object twice: which of the two is meant?
    """
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise InvalidValue(f"the JSON is nested more than {MAX_DEPTH} deep") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise NotJson(f"not valid JSON: {error}") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        raise InvalidValue(f"the JSON has a number of more than {MAX_DIGITS} digits") from None
    check_value(value)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise InvalidValue(f"the JSON has an object with the name {twice!a} twice")
    return members


def _check_text(text: str, where: str) -> None:
    if "\x00" in text:
        _refuse(where, "contains the NUL character, which Postgres cannot keep")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            _refuse(where, "contains a lone surrogate, which is not text")


def _refuse(where: str, what: str) -> None:
    raise InvalidValue(f"{where or 'the value'} {what}", (Problem(where, what),))
