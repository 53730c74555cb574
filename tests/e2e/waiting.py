"""Waiting for a condition, never for a time; and watching that one stays."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that anything without a deadline of its own may take on a loaded machine."""

_PAUSE = 0.05


def eventually(what: str, look: Callable[[], T], *, within: float = PATIENCE) -> T:
    """Return what ``look`` gives as soon as it is true. Fails after ``within`` seconds, with the last it gave."""
    seen = look()
    for _ in _moments(within):
        if seen:
            return seen
        seen = look()
    assert seen, f"waited {within:g} s for {what}; the last look gave {seen!r}"
    return seen


def always(what: str, look: Callable[[], T], *, during: float) -> None:
    """Look again and again for ``during`` seconds. Fails as soon as ``look`` gives something false."""
    for _ in _moments(during):
        assert look(), f"{what} did not stay so"


def _moments(seconds: float) -> Iterator[None]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
        time.sleep(_PAUSE)
