"""How a run of a task is seen from outside, at the same price for every contender: a note in shared memory.

Each process that runs tasks has a file of its own in one folder: a count, and a ring of the newest notes. There is
one writer a file, so nothing is locked. Times are ``CLOCK_MONOTONIC``, which all processes of a machine share.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

FOLDER = "BENCH_TALLY"
"""The variable that names the folder."""

TOGETHER = "BENCH_TOGETHER"
"""The variable that says how many processes begin together: the first run in each waits for the others' first."""

_PATIENCE = 60.0
"""Seconds that one waits for the others."""

RING = 16_384
"""Notes that a file keeps: more than one process makes in a round whose times are read."""

_COUNT = struct.Struct("=Q")
_NOTE = struct.Struct("=QQ")
_SIZE = _NOTE.size * (RING + 1)


class Note(NamedTuple):
    """One run: the process that ran it, the task's key, and when it was done (nanoseconds)."""

    pid: int
    key: int
    at: int


class Pen:
    """The writing end, for one process."""

    def __init__(self, folder: Path) -> None:
        self.pid = os.getpid()
        with (folder / str(self.pid)).open("w+b") as file:
            file.truncate(_SIZE)
            self._page = mmap.mmap(file.fileno(), _SIZE)
        self._count = 0

    def note(self, key: int) -> None:
        """Write down that the task ``key`` was run now."""
        _NOTE.pack_into(self._page, _NOTE.size * (1 + self._count % RING), key, time.monotonic_ns())
        self._count += 1
        _COUNT.pack_into(self._page, 0, self._count)


_pen: Pen | None = None


def note(key: int) -> None:
    """Write down, in the file of this process, that the task ``key`` was run now."""
    global _pen
    if _pen is None or _pen.pid != os.getpid():  # forked: the file is the parent's
        folder = Path(os.environ[FOLDER])
        _pen = Pen(folder)
        _wait_for_others(folder, int(os.environ.get(TOGETHER, "1")))
    _pen.note(key)


def _wait_for_others(folder: Path, processes: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while len(os.listdir(folder)) < processes and time.monotonic() < deadline:
        time.sleep(0.001)


class Tally:
    """The reading end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def count(self) -> int:
        """How many runs there were."""
        return sum(_count_in(path) for path in self.folder.iterdir())

    def notes(self) -> list[Note]:
        """The runs, the earliest first; of each process the newest `RING` at most."""
        return sorted((note for path in self.folder.iterdir() for note in _notes_in(path)), key=lambda note: note.at)


def _count_in(path: Path) -> int:
    with path.open("rb") as file:
        head = file.read(_COUNT.size)
    return int(_COUNT.unpack(head)[0]) if len(head) == _COUNT.size else 0


def _notes_in(path: Path) -> list[Note]:
    content = path.read_bytes()
    if len(content) < _SIZE:
        return []
    count = min(_COUNT.unpack_from(content)[0], RING)
    pid = int(path.name)
    return [Note(pid, *pair) for pair in _NOTE.iter_unpack(content[_NOTE.size : _NOTE.size * (1 + count)])]
