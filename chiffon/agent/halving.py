"""Gathering without guilt: a statement over many that is refused for the sake of one is repeated without that one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog

from chiffon.domain.errors import LedgerUnavailable, SchemaBehind
from chiffon.ledger.failures import LostRace, RefusedData

log = structlog.get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R")


def halved(
    batch: Sequence[T], together: Callable[[Sequence[T]], list[R]], alone: Callable[[T, Exception], list[R]]
) -> list[R]:
    """What ``together`` says of the batch, each half on its own where one of its members spoils it.

    Args:
        batch: what belongs together; may be empty.
        together: one transaction over many. LedgerUnavailable and SchemaBehind go through: they are nobody's fault.
        alone: what to say of the one that spoils even a transaction of its own; else it would come again for ever. Of
            one that lost a race (LostRace) nothing is said: it is to come again.
    """
    if not batch:
        return []
    try:
        return together(batch)
    except (LedgerUnavailable, SchemaBehind):
        raise
    except Exception as error:
        if not isinstance(error, RefusedData | LostRace):
            log.exception("batch_spoilt", size=len(batch))
        if len(batch) > 1:
            half = len(batch) // 2
            return halved(batch[:half], together, alone) + halved(batch[half:], together, alone)
        return alone(batch[0], error)
