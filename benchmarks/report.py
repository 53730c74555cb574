"""What is left of a run: all of it as JSON, a table to read, a plot to look at."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.options import Options
from benchmarks.plot import plot
from benchmarks.ratios import BARS, ratios
from benchmarks.records import Records, Summary
from benchmarks.stand import REPOSITORY

PACKAGES = ("celery", "dramatiq", "procrastinate", "gunicorn", "psycopg2-binary")


@dataclass(frozen=True)
class Circumstances:
    """Under which it was measured."""

    revision: str
    machine: Mapping[str, Any]
    begun_at: str

    @classmethod
    def now(cls, services: Mapping[str, str]) -> Circumstances:
        """Read them off this machine. ``services``: the versions of broker and database."""
        machine = {
            "processor": _processor(),
            "processors": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "system": platform.system(),
            "python": platform.python_version(),
            **services,
            **{name: version(name) for name in PACKAGES},
        }
        return cls(_revision(), machine, datetime.now(UTC).isoformat(timespec="seconds"))


def write(folder: Path, circumstances: Circumstances, options: Options, records: Records) -> None:
    """Write ``latest.json``, ``latest.md`` and ``latest.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        **asdict(circumstances),
        "full": options.is_full,
        "seed": options.seed,
        "sizes": asdict(options.sizes),
        "ratios": ratios(records),
        "bars": {bar.name: {"how": bar.how, "least": bar.least, "goal": bar.goal} for bar in BARS},
        "rounds": [asdict(record) for record in records.all],
    }
    (folder / "latest.json").write_text(json.dumps(content, indent=1) + "\n")
    (folder / "latest.md").write_text(markdown(circumstances, options, records))
    (folder / "latest.svg").write_text(plot(records))


def markdown(circumstances: Circumstances, options: Options, records: Records) -> str:
    """The whole as a page: the bars first, then every figure, then what failed."""
    machine = ", ".join(f"{name} {value}" for name, value in circumstances.machine.items())
    lines = [
        f"Revision `{circumstances.revision}`, {circumstances.begun_at}, seed {options.seed}, "
        f"{'a full run' if options.is_full else 'NOT a full run: no figures to quote'}. {machine}.",
        "",
        "Medians; in brackets the least and the most of the rounds.",
        "",
        *bars_table(ratios(records)),
        *_sections(records),
        *_failures(records),
    ]
    return "\n".join(lines) + "\n"


def bars_table(found: Mapping[str, float]) -> Iterator[str]:
    """The bars, with what was reached."""
    yield from _row("bar", "how", "ratio", "least", "goal", "reached")
    yield from _row("---", "---", "--:", "--:", "--:", "---")
    for bar in BARS:
        ratio = found.get(bar.name)
        how = f"{bar.how} (lower is better)" if bar.lower_is_better else bar.how
        marks = (f"{bar.least:g}", f"{bar.goal:g}")
        reached = ("not measured", "") if ratio is None else (f"{ratio:.2f}", bar.grade(ratio))
        yield from _row(f"`{bar.name}`", how, reached[0], *marks, reached[1])
    yield ""


def _sections(records: Records) -> Iterator[str]:
    """A table a section: of each value the median, and between which rounds it lies."""
    for section in dict.fromkeys(record.section for record in records.all):
        ours = [record for record in records.all if record.section == section]
        names = list(dict.fromkeys(name for record in ours for name in record.values))
        yield from (f"## {section}", "")
        yield from _row("case", "contender", *(name.replace("_", " ") for name in names))
        yield from _row("---", "---", *("--:" for _ in names))
        for case, contender in sorted({(record.case, record.contender) for record in ours}):
            cells = (_cell(records.summary(section, case, contender, name)) for name in names)
            yield from _row(case, contender, *cells)
        yield ""


def _cell(summary: Summary | None) -> str:
    if summary is None:
        return ""
    median, least, most = map(figure, (summary.median, summary.least, summary.most))
    return median if summary.rounds == 1 else f"{median} ({least} - {most})"


def figure(value: float) -> str:
    """A number with three digits that mean something, or all before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _failures(records: Records) -> Iterator[str]:
    failures = records.failures()
    yield from ("## Failed rounds", "", *([] if failures else ["None."]))
    for record in failures:
        why = record.failure.splitlines()[0]
        yield f"- {record.section} {record.case}, {record.contender}, round {record.round}: {why}"


def _row(*cells: str) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _revision() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + ("+changes" if changed else "")
