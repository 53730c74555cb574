"""What must not be seen: the values of parameters named as secret."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

HIDDEN = "[redacted]"


def redact(value: Any, secret: Iterable[str]) -> Any:
    """A copy of ``value`` in which every member named like one of ``secret`` (part of the name, any case) is hidden."""
    words = tuple(_plain(word) for word in secret)

    def walk(item: Any) -> Any:
        if isinstance(item, dict):
            return {k: HIDDEN if any(w in _plain(str(k)) for w in words) else walk(v) for k, v in item.items()}
        if isinstance(item, list | tuple):
            return [walk(child) for child in item]
        return item

    return walk(value)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
