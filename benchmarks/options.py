"""How much is measured: the whole bench, or a quick look."""

from __future__ import annotations

from collections.abc import Mapping
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


FULL = Sizes(rounds=5, drain={"noop": 10_000, "spin": 10_000, "nap": 1_000})
QUICK = Sizes(rounds=1, drain={"noop": 1_000, "spin": 1_000, "nap": 100})


@dataclass(frozen=True)
class Options:
    """What was asked for. Empty ``sections`` or ``contenders``: all."""

    sizes: Sizes
    seed: int
    out: Path
    sections: tuple[str, ...] = ()
    contenders: tuple[str, ...] = field(default=())

    @property
    def is_full(self) -> bool:
        """Whether this is a run whose figures may be published."""
        return self.sizes == FULL and not self.sections and not self.contenders
