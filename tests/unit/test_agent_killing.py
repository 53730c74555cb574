"""Who kills waits for the end, and not without an end: a process may be in a call that nothing interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from chiffon.agent import killing
from chiffon.agent.killing import kill


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that run for as long as they may."""
    with ExitStack() as stack:
        found = [stack.enter_context(subprocess.Popen(["/bin/sleep", "60"])) for _ in range(3)]
        yield found
        for process in found:
            process.kill()


def test_the_killed_are_dead_and_left_for_others_to_reap(processes: list[subprocess.Popen[bytes]]) -> None:
    kill(*(process.pid for process in processes))
    assert [process.poll() for process in processes] == [-signal.SIGKILL] * 3


def test_who_is_gone_already_is_no_trouble(processes: list[subprocess.Popen[bytes]]) -> None:
    gone = processes[0]
    gone.kill()
    gone.wait()
    kill(gone.pid, processes[1].pid)
    assert processes[1].poll() == -signal.SIGKILL


def test_those_that_cannot_be_interrupted_are_waited_for_together_and_not_for_long(
    processes: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def still_runs(kind: Any, pid: int, options: int) -> None:
        assert options & os.WNOHANG, "it would wait without an end"

    monkeypatch.setattr(os, "waitid", still_runs)
    began = time.monotonic()
    kill(*(process.pid for process in processes))
    assert time.monotonic() - began < 2 * killing._DEAD_WITHIN
    assert [process.wait() for process in processes] == [-signal.SIGKILL] * 3
