"""Ends what its owner started once the owner has ended, however it ended: Ctrl-C, a signal, SIGKILL.

The owner marks its own environment, so that everything it starts from then on carries the mark, daemons such as
`epmd` included. A small process of its own session waits at a pipe: the kernel closes it when the owner ends, and
the guardian then ends every marked process and what descends from it, and removes the paths it was told of.
This file is also that small process, and imports nothing of Chiffon so that it starts at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil

MARK = "DEVSTACK_OWNER"
"""The variable that marks; not ``CHIFFON_*``, which agents take away from the programs they run."""

IS_GUARDIAN = "DEVSTACK_GUARDIAN"

_LADDER = ((signal.SIGTERM, 2.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 5.0))
"""Ask; insist (SIGQUIT is the quick stop of Postgres, Celery, gunicorn and Erlang alike); end. In seconds."""


class Guardian:
    """The owner's end of the pipe. Everything started after this belongs to it."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        os.environ[MARK] = self._mark
        environment = {**os.environ, IS_GUARDIAN: "1"}
        del environment[MARK]
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, self._mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=environment,
            start_new_session=True,
        )

    def remove_at_end(self, path: Path) -> None:
        """Have a file, or a folder with everything in it, removed after the last process has ended."""
        assert self._process.stdin is not None  # noqa: S101  -- it was opened as a pipe
        self._process.stdin.write(f"{path.resolve()}\n".encode())
        self._process.stdin.flush()

    def close(self) -> None:
        """End what is still there and wait until it is gone. Repeating it is harmless."""
        if os.environ.get(MARK) == self._mark:
            del os.environ[MARK]
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


def marked(mark: str) -> set[psutil.Process]:
    """Find the living processes that carry ``mark`` in their environment, and all their descendants."""
    children: dict[int, list[psutil.Process]] = {}
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            children.setdefault(process.ppid(), []).append(process)
            environment = process.environ()
            if IS_GUARDIAN in environment:  # it has work of its own to finish, and then ends
                children[process.ppid()].remove(process)
            elif environment.get(MARK) == mark:
                found.add(process)
        except (psutil.Error, OSError):
            continue
    frontier = list(found)
    while frontier:
        for child in children.get(frontier.pop().pid, ()):
            if child not in found:
                found.add(child)
                frontier.append(child)
    return {process for process in found if lives(process)}


def lives(process: psutil.Process) -> bool:
    """Tell whether it is still there; a zombie, which only waits for its parent to notice, is not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def end_all(mark: str) -> None:
    """End everything that carries ``mark``; return when two looks in a row found nothing."""
    for number, patience in _LADDER:
        deadline = time.monotonic() + patience
        signalled: set[psutil.Process] = set()
        calm = 0
        while time.monotonic() < deadline:
            left = marked(mark)
            calm = 0 if left else calm + 1
            if calm == 2:
                return
            for process in left - signalled:
                _send(process, number)
            signalled |= left
            time.sleep(0.1)


def _send(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
        process.send_signal(signal.SIGCONT)  # one that was stopped would not hear
    except psutil.Error:
        return


def main() -> None:
    """Wait until the owner has ended, then end what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    paths = [Path(line.rstrip("\n")) for line in sys.stdin]
    end_all(sys.argv[1])
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
