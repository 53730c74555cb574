"""Races: what lost one is repeated, but not without an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from chiffon.ledger.failures import LostRace

T = TypeVar("T")

_RACES = 10
"""How often an acceptance that lost a race is repeated: each loss means that somebody else's was accepted."""

_FOR = 3.0
"""Seconds after which it is not repeated any more: somebody holds an id, and does not go on."""


def repeated(attempt: Callable[[], T], again: Callable[[], T] | None = None) -> T:
    """What ``attempt`` comes to; if it loses a race, ``again`` (by default the same) is tried.

    Raises LostRace: it loses every time; nothing was accepted.
    """
    until = time.monotonic() + _FOR
    for left in reversed(range(_RACES)):
        try:
            return attempt()
        except LostRace as error:
            if not left or time.monotonic() > until:
                raise LostRace(
                    "another transaction holds the request_id or task_id and does not come to its end: nothing was "
                    "accepted; try again with the same request_id"
                ) from error
            attempt = again or attempt
    raise AssertionError("the last one returns or raises")
