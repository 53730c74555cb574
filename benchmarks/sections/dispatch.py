"""Dispatch: how fast tasks are taken in, with no agent running."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from benchmarks.bench import Bench
from benchmarks.contenders import CHIFFON
from benchmarks.stand import EMPTY, LEDGER

NAME = "dispatch"


class Dispatcher(Protocol):
    """One way to dispatch."""

    @property
    def name(self) -> str:
        """Of the contender."""

    @property
    def case(self) -> str:
        """Of the way."""

    def measure(self, bench: Bench) -> dict[str, float]:
        """Return tasks per second."""


@dataclass(frozen=True)
class ByCelery:
    """A bare `apply_async`, from some threads of one process."""

    name: str
    case: str
    clients: int
    confirms: bool

    def measure(self, bench: Bench) -> dict[str, float]:
        """How many were published a second."""
        environment = {"BENCH_RESULTS": "off", "BENCH_CONFIRMS": str(int(self.confirms))}
        sizes = (str(self.clients), str(bench.sizes.dispatch[self.case]))
        with bench.stand.ground(EMPTY) as ground:
            found = ground.ask("client", "benchmarks.apps.celery_dispatch", *sizes, environment=environment)
        return {"tasks_per_s": found["count"] / found["published_s"]}


@dataclass(frozen=True)
class ByHttp:
    """The API, from some connections at once."""

    name: str
    case: str
    clients: int
    batch: int

    def measure(self, bench: Bench) -> dict[str, float]:
        """How many were durable a second, and how many were confirmed by the broker, too."""
        sizes = (str(self.clients), str(bench.sizes.dispatch[self.case]), str(self.batch))
        with bench.stand.ground(LEDGER) as ground, CHIFFON.api(ground) as url:
            environment = {"BENCH_API_KEY": CHIFFON.KEY}
            found = ground.ask("client", "benchmarks.apps.http_dispatch", url, *sizes, environment=environment)
        return {
            "durable_per_s": found["count"] / found["durable_s"],
            "confirmed_per_s": found["count"] / found["confirmed_s"],
        }


WAYS: tuple[Dispatcher, ...] = (
    ByCelery("celery-confirmed", "apply_async", 1, confirms=True),
    ByCelery("celery-unconfirmed", "apply_async", 1, confirms=False),
    ByCelery("celery-confirmed", "apply_async16", 16, confirms=True),
    ByCelery("celery-unconfirmed", "apply_async16", 16, confirms=False),
    ByHttp("chiffon", "http1", 1, 1),
    ByHttp("chiffon", "http16", 16, 1),
    ByHttp("chiffon", "batch500", 1, 500),
    ByHttp("chiffon", "batch500x4", 4, 500),
)


def run(bench: Bench) -> None:
    """Measure every way."""
    for number, way in bench.rounds(bench.chosen(WAYS)):
        bench.measure(NAME, way.case, way, number, partial(way.measure, bench))
