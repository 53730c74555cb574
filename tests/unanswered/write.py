"""A write, as its caller makes it and makes it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from chiffon.domain.errors import WrongState
from chiffon.ledger.connect import Cursor, Ledger


@dataclass(frozen=True)
class Write:
    """Something that a caller has the ledger do, and does again when it heard nothing.

    ``again``: what it is told the second time. ``moves``: columns in which the second time may be seen.
    ``check``: what else must hold. ``beside``: what it changes, if that is in no row.
    """

    do: Callable[[Ledger], Any]
    again: Any = None
    moves: frozenset[str] = frozenset()
    check: Callable[[], None] = lambda: None
    beside: Callable[[], Any] = lambda: None


def inside(write: Callable[[Cursor], Any]) -> Callable[[Ledger], Any]:
    """The write as a transaction of its own."""

    def do(ledger: Ledger) -> Any:
        with ledger.transaction() as cursor:
            return write(cursor)

    return do


def refused(do: Callable[[Ledger], Any]) -> Callable[[Ledger], Any]:
    """The same; a refusal is an answer."""

    def attempt(ledger: Ledger) -> Any:
        try:
            return do(ledger)
        except WrongState:
            return WrongState

    return attempt
