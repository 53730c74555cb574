"""The plot: how fast each contender drains, as SVG drawn by hand: it needs no library, and its diffs are small."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from benchmarks.records import Records, Summary

WIDTH = 760
_LABELS = 170
_BARS = WIDTH - _LABELS - 130
_LINE = 22
_HEAD = 34
_OURS, _OTHERS, _SPREAD = "#7a4fd0", "#9aa5b1", "#333333"

SHOWN = (
    ("drain", "noop", "tasks_per_s", "No-op tasks done per second"),
    ("drain", "spin", "tasks_per_s", "Tasks of 1 ms of processor time done per second"),
    ("drain", "nap", "tasks_per_s", "Tasks of 10 ms of waiting done per second"),
)
"""Section, case, value and title of each panel."""


def plot(records: Records) -> str:
    """Draw a panel for each case that was measured: bars for medians, whiskers from the least to the most."""
    panels: list[str] = []
    top = 10
    for section, case, value, title in SHOWN:
        rows = _rows(records, section, case, value)
        if rows:
            panels.extend(_panel(title, rows, top))
            top += _HEAD + _LINE * len(rows) + 16
    style = "text { font: 13px sans-serif; fill: #222222 } .title { font-weight: bold }"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}">'
    ground = f'<rect width="{WIDTH}" height="{top}" fill="white"/>'
    return "\n".join([head, f"<style>{style}</style>", ground, *panels, "</svg>", ""])


def _rows(records: Records, section: str, case: str, value: str) -> list[tuple[str, Summary]]:
    """The contenders of a case, the fastest first."""
    contenders = {record.contender for record in records.all if (record.section, record.case) == (section, case)}
    found = [(name, records.summary(section, case, name, value)) for name in contenders]
    rows = [(name, summary) for name, summary in found if summary is not None]
    return sorted(rows, key=lambda row: (-row[1].median, row[0]))


def _panel(title: str, rows: list[tuple[str, Summary]], top: int) -> Iterator[str]:
    yield f'<text class="title" x="10" y="{top + 16}">{escape(title)}</text>'
    most = max(summary.most for _, summary in rows) or 1
    for number, (name, summary) in enumerate(rows):
        y = top + _HEAD + number * _LINE
        length, least, highest = (x / most * _BARS for x in (summary.median, summary.least, summary.most))
        colour = _OURS if name.startswith("chiffon") else _OTHERS
        yield f'<text x="{_LABELS - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
        yield f'<rect x="{_LABELS}" y="{y}" width="{length:.1f}" height="15" fill="{colour}"/>'
        whisker = f"M{_LABELS + least:.1f} {y + 7.5}H{_LABELS + highest:.1f}"
        yield f'<path d="{whisker}" stroke="{_SPREAD}" stroke-width="1.5"/>'
        yield f'<text x="{_LABELS + highest + 8:.1f}" y="{y + 12}">{summary.median:,.0f}</text>'
