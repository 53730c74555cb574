"""What must not be seen: the values of parameters named as secret."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

HIDDEN = "[redacted]"

_USUAL = 64
"""Characters of a name that is looked up rather than looked at: the same few come again and again."""


def redact(value: Any, secret: Iterable[str]) -> Any:
    """A copy of ``value`` in which every member named like one of ``secret`` (part of the name, any case) is hidden."""
    words = tuple(secret)

    def walk(item: Any) -> Any:
        if isinstance(item, dict):
            return {k: HIDDEN if is_secret(str(k), words) else walk(v) for k, v in item.items()}
        if isinstance(item, list | tuple):
            return [walk(child) for child in item]
        return item

    return walk(value)


def is_secret(name: str, words: tuple[str, ...]) -> bool:
    """Whether what has this name is to be hidden; ``words``: as ``secret``."""
    return (_is_named_so if len(name) <= _USUAL else _is_named_so.__wrapped__)(name, words)


@lru_cache(maxsize=4096)
def _is_named_so(name: str, words: tuple[str, ...]) -> bool:
    return any(_plain(word) in _plain(name) for word in words)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
