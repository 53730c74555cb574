"""`shell.run`: nothing of a command outlives its task, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import psutil
import pytest

from chiffon import Fail
from tests.racing import until
from tests.unit.contexts import context
from workers.command import GRACE, LEASH
from workers.shell import run

ROOT = Path(__file__).parents[2]
LINGER = "sleep 300 & echo $! > child; echo $$ > leader; wait"
"""A shell that leaves its number, and that of a child of its own, in two files, and waits."""


class SoftLimit(Exception):
    """What Celery's soft time limit is to the work: an exception from nowhere."""


def is_gone(pid_file: Path) -> bool:
    try:
        return psutil.Process(int(pid_file.read_text())).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def has_started(folder: Path) -> bool:
    return (folder / "leader").exists() and (folder / "leader").read_text().endswith("\n")


def test_a_cancelled_task_ends_the_command_and_its_children(tmp_path: Path) -> None:
    with pytest.raises(Fail, match="cancelled"):
        run(context(is_cancelled=lambda: has_started(tmp_path)), ["sh", "-c", LINGER], cwd=str(tmp_path))

    assert is_gone(tmp_path / "leader")
    assert is_gone(tmp_path / "child")


def test_a_thread_can_be_cancelled_too(tmp_path: Path) -> None:
    def cancelled() -> bool:
        return has_started(tmp_path)

    with ThreadPoolExecutor() as threads:
        future = threads.submit(run, context(is_cancelled=cancelled), ["sh", "-c", LINGER], cwd=str(tmp_path))
        assert isinstance(future.exception(), Fail)

    assert is_gone(tmp_path / "child")


def test_a_soft_time_limit_ends_the_command_and_its_children(tmp_path: Path) -> None:
    def raise_limit(_: int, __: FrameType | None) -> None:
        raise SoftLimit

    def interrupt_when_started() -> bool:
        if has_started(tmp_path):
            os.kill(os.getpid(), signal.SIGUSR1)
        return False

    before = signal.signal(signal.SIGUSR1, raise_limit)
    try:
        with pytest.raises(SoftLimit):
            run(context(is_cancelled=interrupt_when_started), ["sh", "-c", LINGER], cwd=str(tmp_path))
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert is_gone(tmp_path / "leader")
    assert is_gone(tmp_path / "child")


def test_a_command_that_will_not_end_is_made_to(tmp_path: Path) -> None:
    began = time.monotonic()

    with pytest.raises(Fail):
        run(
            context(is_cancelled=lambda: has_started(tmp_path)),
            ["sh", "-c", f"trap '' TERM; {LINGER}"],
            cwd=str(tmp_path),
        )

    assert time.monotonic() - began >= GRACE
    assert is_gone(tmp_path / "leader")
    assert is_gone(tmp_path / "child")


def test_a_command_is_given_time_to_clean_up(tmp_path: Path) -> None:
    script = f"trap 'sleep 0.2; echo cleaned; touch cleaned; exit' TERM; {LINGER}"
    with pytest.raises(Fail):
        run(context(is_cancelled=lambda: has_started(tmp_path)), ["sh", "-c", script], cwd=str(tmp_path))

    assert (tmp_path / "cleaned").exists()


def test_what_the_command_leaves_running_ends_with_it(tmp_path: Path) -> None:
    outcome = run(context(), ["sh", "-c", "sleep 300 & echo $! > child; echo done"], cwd=str(tmp_path))

    assert outcome["stdout"] == "done\n"
    assert outcome["duration_seconds"] < GRACE
    assert is_gone(tmp_path / "child")


def test_a_daemon_that_keeps_the_output_open_does_not_hold_up_the_task(tmp_path: Path) -> None:
    try:
        outcome = run(context(), ["sh", "-c", "setsid sleep 300 & echo $! > daemon; echo done"], cwd=str(tmp_path))
        assert outcome["stdout"] == "done\n"
    finally:
        daemon = int((tmp_path / "daemon").read_text())
        if psutil.pid_exists(daemon):
            os.kill(daemon, signal.SIGKILL)


def test_the_command_does_not_outlive_a_killed_agent(tmp_path: Path) -> None:
    source = (
        "from chiffon import WorkContext\n"
        "from workers.shell import run\n"
        "nobody = WorkContext('t', '0' * 32, 'r', 1, None, lambda *_: None, lambda: False)\n"
        f"run(nobody, ['sh', '-c', {LINGER!r}], cwd={str(tmp_path)!r})\n"
    )
    agent = subprocess.Popen([sys.executable, "-c", source], cwd=ROOT)
    try:
        until(lambda: has_started(tmp_path))
    finally:
        agent.kill()
        agent.wait()

    until(lambda: is_gone(tmp_path / "leader") and is_gone(tmp_path / "child"))


def test_the_command_does_not_outlive_its_watcher(tmp_path: Path) -> None:
    def kill_the_watcher() -> bool:
        if has_started(tmp_path):
            for child in psutil.Process().children():
                if child.status() != psutil.STATUS_ZOMBIE and str(LEASH) in child.cmdline():
                    child.kill()
        return False

    with pytest.raises(RuntimeError, match="watches over the command was killed"):
        run(context(is_cancelled=kill_the_watcher), ["sh", "-c", LINGER], cwd=str(tmp_path))

    until(lambda: is_gone(tmp_path / "leader") and is_gone(tmp_path / "child"))
