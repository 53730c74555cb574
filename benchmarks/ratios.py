"""The bars: what Chiffon is held to, as ratios of medians of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks.records import Records


class Cell(NamedTuple):
    """Where a median comes from."""

    section: str
    case: str
    contender: str
    value: str


@dataclass(frozen=True)
class Bar:
    """One ratio: what must be reached, and what is aimed at."""

    name: str
    how: str
    over: Cell
    under: Cell
    least: float
    goal: float
    lower_is_better: bool = False

    def grade(self, ratio: float) -> str:
        """Return "goal" or "least" for what is reached, else "missed"."""
        for name, mark in (("goal", self.goal), ("least", self.least)):
            if (ratio <= mark) if self.lower_is_better else (ratio >= mark):
                return name
        return "missed"


def _drain(contender: str) -> Cell:
    return Cell("drain", "noop", contender, "tasks_per_s")


_CONFIRMED = Cell("dispatch", "apply_async", "celery-confirmed", "tasks_per_s")
_BEST = _drain("chiffon-throughput")
_DEFAULT = _drain("chiffon")

BARS = (
    Bar("drain_vs_celery_results_off", "no-op, throughput profile", _BEST, _drain("celery-results-off"), 1.0, 1.5),
    Bar("drain_default_vs_celery_results_off", "no-op, defaults", _DEFAULT, _drain("celery-results-off"), 0.5, 1.0),
    Bar("drain_default_vs_celery_db_tracked", "no-op, defaults", _DEFAULT, _drain("celery-db-tracked"), 5, 8),
    Bar("drain_vs_dramatiq", "no-op, throughput; dramatiq keeps no results", _BEST, _drain("dramatiq"), 0.5, 0.8),
    Bar("drain_vs_procrastinate", "no-op, throughput profile", _BEST, _drain("procrastinate"), 5, 8),
    Bar(
        "batch_dispatch_vs_apply_async_confirmed",
        "batches of 500, until durable and confirmed",
        Cell("dispatch", "batch500", "chiffon", "confirmed_per_s"),
        _CONFIRMED,
        5,
        10,
    ),
    Bar(
        "http_dispatch16_vs_apply_async_confirmed",
        "16 clients, until durable",
        Cell("dispatch", "http16", "chiffon", "durable_per_s"),
        _CONFIRMED,
        1.0,
        2,
    ),
    Bar(
        "latency_p50_vs_celery_rpc",
        "dispatch to result by `AsyncResult.get`, 20/s",
        Cell("latency", "get@20", "chiffon", "result_p50_ms"),
        Cell("latency", "get@20", "celery-rpc", "result_p50_ms"),
        2.0,
        1.2,
        lower_is_better=True,
    ),
    Bar(
        "drain_5M_vs_10k",
        "throughput profile, 5 million settled rows against 10 thousand",
        Cell("growth", "5M", "chiffon-throughput", "drain_per_s"),
        Cell("growth", "10k", "chiffon-throughput", "drain_per_s"),
        0.9,
        1.0,
    ),
    Bar(
        "agent_rss_growth_200k",
        "after 200,000 tasks against after 20,000",
        Cell("memory", "agent", "chiffon", "late_mb"),
        Cell("memory", "agent", "chiffon", "early_mb"),
        1.05,
        1.00,
        lower_is_better=True,
    ),
)


def ratios(records: Records) -> Mapping[str, float]:
    """Return each bar's ratio, of those whose both sides were measured."""
    found = {}
    for bar in BARS:
        over, under = records.summary(*bar.over), records.summary(*bar.under)
        if over is not None and under is not None and under.median:
            found[bar.name] = over.median / under.median
    return found
