"""How much is measured: the whole bench, or a quick look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROCESSES = 2
"""How many processes run tasks, for every contender."""


@dataclass(frozen=True)
class Sizes:
    """Tasks, unless a name says otherwise."""

    rounds: int
    drain: Mapping[str, int]
    """By deed."""

    dispatch: Mapping[str, int]
    """By case."""

    latency: Mapping[int, int]
    """By the rate of arrival, in tasks a second."""

    backlog: int
    """Tasks in whose way an urgent one comes."""

    growth: Sequence[int]
    """Rows."""

    growth_drain: int
    growth_dispatch: Mapping[int, int]
    """By the number of clients: 16 one by one, or 1 in batches."""

    memory: tuple[int, int]
    """After how many tasks it is measured for the first time, and for the last."""

    memory_waiting: int


FULL = Sizes(
    rounds=5,
    drain={"noop": 10_000, "spin": 10_000, "nap": 1_000},
    dispatch={
        "apply_async": 5_000,
        "apply_async16": 5_000,
        "http1": 2_000,
        "http16": 5_000,
        "batch500": 20_000,
        "batch500x4": 20_000,
    },
    latency={20: 200, 200: 1_000},
    backlog=10_000,
    growth=(10_000, 1_000_000, 5_000_000),
    growth_drain=10_000,
    growth_dispatch={16: 2_000, 1: 10_000},
    memory=(20_000, 200_000),
    memory_waiting=100_000,
)
QUICK = Sizes(
    rounds=1,
    drain={"noop": 1_000, "nap": 100},
    dispatch={
        "apply_async": 500,
        "apply_async16": 500,
        "http1": 100,
        "http16": 300,
        "batch500": 2_000,
        "batch500x4": 2_000,
    },
    latency={20: 40},
    backlog=500,
    growth=(1_000, 5_000),
    growth_drain=500,
    growth_dispatch={16: 200, 1: 1_000},
    memory=(500, 1_000),
    memory_waiting=1_000,
)


@dataclass(frozen=True)
class Options:
    """What was asked for. Empty ``sections`` or ``contenders``: all."""

    sizes: Sizes
    seed: int
    out: Path
    sections: tuple[str, ...] = ()
    contenders: tuple[str, ...] = field(default=())

    @property
    def is_quick(self) -> bool:
        """Whether it is a look that shows that everything still runs."""
        return self.sizes == QUICK

    @property
    def is_full(self) -> bool:
        """Whether this is a run whose figures may be published."""
        return self.sizes == FULL and not self.sections and not self.contenders
