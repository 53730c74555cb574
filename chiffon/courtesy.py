"""Courtesy: in Python one thread works at a time, and one with much to do in the background lets others go first."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

EVERY = 64
"""Items after which to let others go: a millisecond or two, where Python's own is five."""

MOMENT = 0.0001
"""Seconds: a thread that gives way for none at all is often the next one again."""


def courteously(items: Iterable[T]) -> Iterator[T]:
    """The items, with a moment for other threads after each few."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % EVERY == 0:
            time.sleep(MOMENT)
