"""A run of the bench: it keeps the dice, records each round, and says how far it is."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

import psutil
import psycopg2

from benchmarks.errors import RoundFailed
from benchmarks.options import Options
from benchmarks.records import Record, Records
from benchmarks.stand import Stand
from chiffon.devstack.errors import DevstackError
from chiffon.domain.errors import ChiffonError


class Named(Protocol):
    """Whoever takes part has a name."""

    @property
    def name(self) -> str:
        """As options and results write it."""


EXPECTED = (RoundFailed, DevstackError, ChiffonError, OSError, psycopg2.Error, psutil.Error, RuntimeError)
"""What ends a round and not the run."""

T = TypeVar("T", bound=Named)


class Bench:
    """What every section is given."""

    def __init__(self, stand: Stand, options: Options, say: Callable[[str], None]) -> None:
        self.stand = stand
        self.options = options
        self.sizes = options.sizes
        self.records = Records()
        self.say = say
        self._dice = random.Random(options.seed)

    def chosen(self, contenders: Iterable[T]) -> list[T]:
        """Return those of them that were asked for."""
        wanted = self.options.contenders
        return [contender for contender in contenders if not wanted or contender.name in wanted]

    def rounds(self, contenders: Sequence[T]) -> Iterator[tuple[int, T]]:
        """Yield each round's number with each contender, in a new order every round."""
        for number in range(1, self.sizes.rounds + 1):
            order = list(contenders)
            self._dice.shuffle(order)
            for contender in order:
                yield number, contender

    def measure(
        self, section: str, case: str, contender: Named, number: int, measurement: Callable[[], Mapping[str, float]]
    ) -> bool:
        """Take one measurement and record it, or record why there is none. Whether there is one."""
        begun = time.monotonic()
        values: Mapping[str, float] = {}
        failure = ""
        try:
            values = measurement()
        except EXPECTED as error:
            failure = str(error) or type(error).__name__
        self.records.add(Record(section, case, contender.name, number, values, failure))
        found = ", ".join(f"{name} {value:,.4g}" for name, value in values.items())
        told = found or f"FAILED: {failure.splitlines()[0]}"
        self.say(f"{section} {case} round {number} {contender.name}: {told} ({time.monotonic() - begun:.0f} s)")
        return not failure
