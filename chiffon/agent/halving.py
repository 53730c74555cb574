"""Gathering without guilt: a statement over many that is refused for the sake of one is repeated without that one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from chiffon.ledger.accept import LostRace
from chiffon.ledger.connect import RefusedData

T = TypeVar("T")
R = TypeVar("R")


def halved(
    batch: Sequence[T], together: Callable[[Sequence[T]], list[R]], alone: Callable[[T, RefusedData], list[R]]
) -> list[R]:
    """What ``together`` says of the batch, each half on its own where Postgres refuses the data.

    Args:
        batch: what belongs together; may be empty.
        together: one transaction over many. Raises RefusedData, LostRace; anything else goes through.
        alone: what to say of the one that was refused by itself.
    """
    if not batch:
        return []
    try:
        return together(batch)
    except (RefusedData, LostRace) as error:
        if len(batch) > 1:
            half = len(batch) // 2
            return halved(batch[:half], together, alone) + halved(batch[half:], together, alone)
        return halved(batch, together, alone) if isinstance(error, LostRace) else alone(batch[0], error)
