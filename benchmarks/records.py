"""What was measured, round by round: raw, and never dropped."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Record:
    """One round of one contender in one case. ``values`` by name, with the unit in it; ``failure`` says why none."""

    section: str
    case: str
    contender: str
    round: int
    values: Mapping[str, float] = field(default_factory=dict)
    failure: str = ""


@dataclass(frozen=True)
class Summary:
    """The rounds of one value: the median and how far they spread."""

    median: float
    least: float
    most: float
    rounds: int


def summarize(values: Iterable[float]) -> Summary | None:
    """Return the summary of some rounds; None when there was none."""
    found = sorted(values)
    if not found:
        return None
    return Summary(statistics.median(found), found[0], found[-1], len(found))


class Records:
    """All records of a run, in the order in which they were made."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.all = list(records)

    def add(self, record: Record) -> None:
        """Keep one more."""
        self.all.append(record)

    def summary(self, section: str, case: str, contender: str, value: str) -> Summary | None:
        """Return the summary of one value over the rounds that gave it."""
        return summarize(
            record.values[value]
            for record in self.all
            if (record.section, record.case, record.contender) == (section, case, contender) and value in record.values
        )

    def failures(self) -> list[Record]:
        """Return the rounds that failed."""
        return [record for record in self.all if record.failure]
