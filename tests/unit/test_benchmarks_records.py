"""What the bench makes of its rounds: medians, ratios, the page and the plot; and that nothing is dropped."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.options import FULL, QUICK, Options
from benchmarks.plot import plot
from benchmarks.ratios import BARS, ratios
from benchmarks.records import Record, Records, Summary, summarize
from benchmarks.report import Circumstances, figure, markdown, write

CIRCUMSTANCES = Circumstances("abc", {"processors": 2}, "2026-01-01T00:00:00+00:00")


def drained(contender: str, *rates: float) -> list[Record]:
    return [Record("drain", "noop", contender, n, {"tasks_per_s": rate}) for n, rate in enumerate(rates, 1)]


def options(out: Path = Path(), **chosen: tuple[str, ...]) -> Options:
    return Options(FULL, 7, out, **chosen)


def bar(name: str) -> list[str]:
    return [line for line in markdown(CIRCUMSTANCES, options(), RECORDS).splitlines() if f"`{name}`" in line]


FAILED = Record("drain", "noop", "dramatiq", 2, failure="worker ended with 1\nTraceback ...")
RECORDS = Records(
    [
        *drained("chiffon-throughput", 300, 100, 200),
        *drained("celery-results-off", 100, 100, 400),
        *drained("dramatiq", 1000),
        FAILED,
    ]
)


def test_a_summary_is_the_median_and_how_far_the_rounds_spread() -> None:
    assert summarize([3.0, 1.0, 2.0]) == Summary(2.0, 1.0, 3.0, 3)


def test_nothing_sums_up_to_nothing() -> None:
    assert summarize([]) is None


def test_a_ratio_is_one_of_medians() -> None:
    assert ratios(RECORDS)["drain_vs_celery_results_off"] == 2.0


def test_a_failed_round_leaves_the_median_of_the_others() -> None:
    assert ratios(RECORDS)["drain_vs_dramatiq"] == pytest.approx(0.2)


def test_what_was_not_measured_has_no_ratio() -> None:
    assert set(ratios(RECORDS)) == {"drain_vs_celery_results_off", "drain_vs_dramatiq"}


def test_the_bars_are_those_that_were_set() -> None:
    assert {bar.name: (bar.least, bar.goal) for bar in BARS} == {
        "drain_vs_celery_results_off": (1.0, 1.5),
        "drain_default_vs_celery_results_off": (0.5, 1.0),
        "drain_default_vs_celery_db_tracked": (5, 8),
        "drain_vs_dramatiq": (0.5, 0.8),
        "drain_vs_procrastinate": (5, 8),
        "batch_dispatch_vs_apply_async_confirmed": (5, 10),
        "http_dispatch16_vs_apply_async_confirmed": (1.0, 2),
        "latency_p50_vs_celery_rpc": (2.0, 1.2),
        "drain_5M_vs_10k": (0.9, 1.0),
        "agent_rss_growth_200k": (1.05, 1.00),
    }


def test_lower_is_better_only_for_latency_and_memory() -> None:
    assert {bar.name for bar in BARS if bar.lower_is_better} == {"latency_p50_vs_celery_rpc", "agent_rss_growth_200k"}


@pytest.mark.parametrize(
    ("name", "ratio", "grade"),
    [
        ("drain_vs_celery_results_off", 1.5, "goal"),
        ("drain_vs_celery_results_off", 1.0, "least"),
        ("drain_vs_celery_results_off", 0.99, "missed"),
        ("latency_p50_vs_celery_rpc", 1.2, "goal"),
        ("latency_p50_vs_celery_rpc", 2.0, "least"),
        ("latency_p50_vs_celery_rpc", 2.1, "missed"),
    ],
)
def test_a_bar_knows_which_side_is_good(name: str, ratio: float, grade: str) -> None:
    assert next(bar for bar in BARS if bar.name == name).grade(ratio) == grade


def test_the_page_shows_a_bar_with_what_was_reached() -> None:
    assert bar("drain_vs_celery_results_off")[0].endswith("| 2.00 | 1 | 1.5 | goal |")


def test_the_page_says_what_was_not_measured() -> None:
    assert "not measured" in bar("drain_5M_vs_10k")[0]


def test_the_page_shows_every_failed_round_and_why() -> None:
    assert "- drain noop, dramatiq, round 2: worker ended with 1" in markdown(CIRCUMSTANCES, options(), RECORDS)


def test_the_page_says_when_the_run_was_not_a_full_one() -> None:
    assert "NOT a full run" in markdown(CIRCUMSTANCES, options(sections=("drain",)), RECORDS)
    assert "NOT a full run" not in markdown(CIRCUMSTANCES, options(), RECORDS)


def test_a_quick_run_is_no_full_one() -> None:
    assert options().is_full
    assert not Options(QUICK, 7, Path()).is_full


@pytest.mark.parametrize(("value", "shown"), [(12345.6, "12,346"), (99.94, "99.9"), (0.01234, "0.0123")])
def test_a_figure_has_no_more_digits_than_mean_something(value: float, shown: str) -> None:
    assert figure(value) == shown


def test_the_plot_has_a_bar_for_each_contender_the_fastest_first() -> None:
    drawing = ElementTree.fromstring(plot(RECORDS))  # noqa: S314  -- our own
    labels = [node.text for node in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert [name for name in labels if name and name[0].islower()] == [
        "dramatiq",
        "chiffon-throughput",
        "celery-results-off",
    ]


def test_what_is_written_holds_every_round(tmp_path: Path) -> None:
    write(tmp_path, CIRCUMSTANCES, options(tmp_path), RECORDS)
    kept = json.loads((tmp_path / "latest.json").read_text())
    assert Records(Record(**record) for record in kept["rounds"]).all == RECORDS.all
    assert kept["ratios"]["drain_vs_celery_results_off"] == 2.0
    assert kept["seed"] == 7
    assert {path.name for path in tmp_path.iterdir()} == {"latest.json", "latest.md", "latest.svg"}
