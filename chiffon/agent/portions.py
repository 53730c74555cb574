"""How much of what has ended is settled in one commit: as much as Postgres can take before patience with it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from chiffon.agent.commands import Finished
from chiffon.domain.verdicts import Completed

MOST_BYTES = 8_000_000
"""Of the results in one statement: Postgres takes about a third of a second for so many."""


class Portions:
    """Used by one thread, which says of each portion how it went."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._most: int | None = None
        """Runs that go together at most, once more were too many; each time that so many were not, one more."""
        self._in_vain: Counter[tuple[str, int]] = Counter()

    def of(self, batch: Sequence[Finished]) -> list[Finished]:
        """The runs to settle now, at least one; what was tried in vain comes after what was not."""
        portion: list[Finished] = []
        size = 0
        for finished in sorted(batch, key=lambda finished: self._in_vain[finished.key]):
            size += _size(finished)
            if portion and (size > self._most_bytes or len(portion) == self._most):
                break
            portion.append(finished)
        return portion

    def unanswered(self, portion: Collection[Finished]) -> None:
        """Postgres has not answered: it may be away, or it was too much."""
        self._most = max(1, len(portion) // 2)
        self._in_vain.update(finished.key for finished in portion)

    def answered(self, portion: Collection[Finished], done: Collection[Finished]) -> None:
        """Postgres has answered; these are settled."""
        if self._most == len(portion):
            self._most += 1
        settled = {finished.key for finished in done}
        for finished in portion:
            if finished.key in settled:
                self._in_vain.pop(finished.key, None)
            else:
                self._in_vain[finished.key] += 1


def _size(finished: Finished) -> int:
    settlement = finished.settlement
    result = settlement.verdict.result if isinstance(settlement.verdict, Completed) else ""
    return sum(len(text) for text in (result, settlement.children, settlement.anew) if text)
