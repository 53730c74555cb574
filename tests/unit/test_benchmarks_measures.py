"""How the bench sees runs, and what it makes of their times."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.apps.crowd import arrive, share
from benchmarks.errors import RoundFailed
from benchmarks.sections.drain import longest_pause, rate
from benchmarks.sections.growth import name_of
from benchmarks.sections.latency import percentiles
from benchmarks.tally import RING, Note, Pen, Tally

SECOND = 1_000_000_000


def notes(count: int, *, pids: tuple[int, ...] = (1, 2)) -> list[Note]:
    """One run a millisecond, by each process in turn."""
    return [Note(pids[n % len(pids)], n, n * SECOND // 1000) for n in range(count)]


def test_what_a_process_notes_is_read_by_another(tmp_path: Path) -> None:
    tally, pen = Tally(tmp_path), Pen(tmp_path)
    pen.note(7)
    pen.note(9)
    assert tally.count() == 2
    assert [(note.pid, note.key) for note in tally.notes()] == [(os.getpid(), 7), (os.getpid(), 9)]


def test_a_tally_without_notes_is_empty(tmp_path: Path) -> None:
    assert (Tally(tmp_path / "new").count(), Tally(tmp_path / "new").notes()) == (0, [])


def test_a_full_ring_keeps_the_newest_and_counts_all(tmp_path: Path) -> None:
    pen = Pen(tmp_path)
    for key in range(RING + 3):
        pen.note(key)
    tally = Tally(tmp_path)
    assert tally.count() == RING + 3
    assert [note.key for note in tally.notes()] == list(range(3, RING + 3))


def test_the_first_tenth_is_not_counted() -> None:
    slow_start = [note._replace(at=note.at - 50 * SECOND) if note.key < 100 else note for note in notes(1000)]
    assert rate(slow_start, 1000, slow_start[-1].at) == pytest.approx(1000)


def test_the_clock_starts_no_sooner_than_the_last_process() -> None:
    late = [Note(1 if n < 500 else n % 2 + 1, n, (n if n < 500 else n + 5000) * SECOND // 1000) for n in range(1000)]
    assert rate(late, 1000, late[-1].at) == pytest.approx(1000)


def test_the_longest_pause_is_one_after_the_warm_up() -> None:
    slow_start = [note._replace(at=note.at - 50 * SECOND) if note.key < 50 else note for note in notes(1000)]
    held_up = [note._replace(at=note.at + SECOND) if note.key >= 700 else note for note in slow_start]
    assert longest_pause(slow_start) == pytest.approx(1)
    assert longest_pause(held_up) == pytest.approx(1001)
    assert longest_pause([]) == 0


def test_the_clock_stops_when_all_is_done_and_not_when_all_has_run() -> None:
    run = notes(1000)
    assert rate(run, 1000, run[-1].at + SECOND) == pytest.approx(899 / 1.899)


def test_a_task_that_did_not_run_fails_the_round() -> None:
    twice = [*notes(999), Note(1, 5, SECOND)]
    with pytest.raises(RoundFailed, match="999 of 1000"):
        rate(twice, 1000, 2 * SECOND)


def test_a_process_that_did_nothing_fails_the_round() -> None:
    with pytest.raises(RoundFailed, match="one process"):
        rate(notes(1000, pids=(1,)), 1000, SECOND)


def test_percentiles_are_by_nearest_rank_in_milliseconds() -> None:
    found = percentiles("start", [n * 1_000_000 for n in range(1, 101)])
    assert found == {"start_p50_ms": 50, "start_p95_ms": 95, "start_p99_ms": 99}


@pytest.mark.parametrize(("rows", "name"), [(10_000, "10k"), (5_000_000, "5M"), (7, "7")])
def test_a_number_of_rows_has_the_name_that_the_bars_use(rows: int, name: str) -> None:
    assert name_of(rows) == name


def test_clients_share_the_work_and_each_task_is_done_once() -> None:
    done: list[int] = []
    share(4, 100, lambda: done.append)
    assert sorted(done) == list(range(100))


def test_arrivals_are_counted_from_when_they_were_due() -> None:
    found = arrive(1000, 20, 4, lambda: lambda key: None)
    assert [key for key, _, _ in found] == list(range(20))
    assert [due - found[0][1] for _, due, _ in found] == [key * SECOND // 1000 for key in range(20)]
    assert all(done >= due for _, due, done in found)
