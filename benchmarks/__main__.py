"""Measure: `python -m benchmarks --only drain --rounds 3 --contenders chiffon,celery-results-off`."""

from __future__ import annotations

import argparse
import dataclasses
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from benchmarks.bench import Bench
from benchmarks.contenders import CHIFFON
from benchmarks.options import FULL, QUICK, Options
from benchmarks.report import Circumstances, write
from benchmarks.sections import dispatch, drain, growth, latency, memory, priority, recovery
from benchmarks.stand import REPOSITORY, Stand

SECTIONS = {section.NAME: section for section in (drain, dispatch, latency, priority, growth, memory, recovery)}
PUBLISHED = REPOSITORY / "benchmarks" / "results"
ELSEWHERE = REPOSITORY / ".chiffon" / "bench"
STOPPED = 130


class Stopped(BaseException):
    """The user, or a signal, asked for the end. No Exception, so that no round takes it for its own."""


def main() -> int:
    """Measure what was asked for, and report. Exit code 1: a round failed that counts; 130: it was stopped.

    In a quick look only Chiffon's own count: another system's are listed, and are nobody's mistake here.
    """
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="chiffon-bench-"))
    _say(f"seed {options.seed}; logs are in {folder} until the end")
    try:
        with _heeding_signals(), Stand(folder) as stand:
            bench = _measure(stand, options)
    except Stopped as why:
        _say(f"Stopped by {why}; what was measured is in {_meanwhile(options)}")
        return STOPPED
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _say((options.out / "latest.md").read_text())
    for record in bench.records.failures():
        _say(f"FAILED {record.section} {record.case} round {record.round} {record.contender}: {record.failure}")
    _say(f"The results are in {options.out}")
    failed = {record.contender for record in bench.records.failures()}
    return 1 if any(name.startswith(CHIFFON.name) or not options.is_quick for name in failed) else 0


def _measure(stand: Stand, options: Options) -> Bench:
    """Run the sections; after each, and should something end the run, write what there is."""
    bench = Bench(stand, options, _say)
    circumstances = Circumstances.now(stand.versions)
    for name, section in SECTIONS.items():
        if not options.sections or name in options.sections:
            try:
                section.run(bench)
            finally:
                write(_meanwhile(options), circumstances, options, bench.records)
    write(options.out, circumstances, options, bench.records)
    return bench


def _meanwhile(options: Options) -> Path:
    """Where the results are until the run is over: what is published is a whole run's."""
    return ELSEWHERE if options.out == PUBLISHED else options.out


@contextmanager
def _heeding_signals() -> Iterator[None]:
    """Stop at Ctrl-C, SIGTERM and SIGHUP, even where who started this ignores them."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the tasks, one round: a look, no figures")
    parser.add_argument("--rounds", type=int, help="how often each measurement is taken")
    parser.add_argument("--only", default="", help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--contenders", default="", help="some of them, by name, joined by commas")
    parser.add_argument("--seed", type=int, help="of the order; a fresh one by default")
    parser.add_argument("--out", type=Path, help="the folder for the results")
    asked = parser.parse_args()
    sizes = QUICK if asked.quick else FULL
    if asked.rounds is not None:
        sizes = dataclasses.replace(sizes, rounds=asked.rounds)
    seed = asked.seed if asked.seed is not None else secrets.randbelow(1_000_000)
    options = Options(sizes, seed, asked.out or ELSEWHERE, _words(asked.only), _words(asked.contenders))
    if unknown := set(options.sections) - SECTIONS.keys():
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    return dataclasses.replace(options, out=PUBLISHED) if options.is_full and asked.out is None else options


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
