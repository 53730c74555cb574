"""A stack in the foreground ends in order on any signal, and says why when one of its processes ends first.

The broker and the ledger are real; the API, the agents and Flower are stood in for by processes that just wait.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from chiffon.devstack.guardian import lives
from tests.racing import until
from tests.services import Services

LIMIT = 60.0

SCRIPT = """
import sys
from chiffon.devstack import stack
from chiffon.devstack.process import Process

def waiting(access, settings, *, folder, stack):
    program = "import time; print('the reason', flush=True); time.sleep(600)"
    log = folder / "agent1.log"
    return [Process("agent1", [sys.executable, "-c", program], log=log, ready=lambda: "reason" in log.read_text())]

stack.describe = waiting
from chiffon.cli import main
main(sys.argv[1:])
"""


class Foreground:
    """A `chiffon up` in a folder of its own, and what it has written so far."""

    def __init__(
        self, folder: Path, *arguments: str, beneath: bool = False, before: tuple[str, ...] = (), **environ: str
    ) -> None:
        self.env_file = folder / ".chiffon" / "env"
        self._output = folder / f"output-{time.monotonic_ns()}"
        command = [*before, sys.executable, "-c", SCRIPT, "up", *arguments]
        if beneath:  # something stands between, as `make` does
            command = ["sh", "-c", f"{shlex.join(command)} & wait"]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, **environ},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def wait_until_up(self) -> list[psutil.Process]:
        """Wait until it is up; return it and all that it runs."""
        until(lambda: "Ctrl-C stops it" in self.output or self.process.poll() is not None, patience=LIMIT)
        assert self.process.poll() is None, self.output
        leader = psutil.Process(self.process.pid)
        return [leader, *leader.children(recursive=True)]


@pytest.fixture
def up(services: Services, tmp_path: Path) -> Iterator[Callable[..., Foreground]]:
    started: list[Foreground] = []

    def start(*arguments: str, **options: Any) -> Foreground:
        started.append(Foreground(tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for foreground in started:
        foreground.process.kill()
        foreground.process.wait()


def the_agent(family: list[psutil.Process]) -> psutil.Process:
    return next(process for process in family[1:] if "the reason" in " ".join(process.cmdline()))


def are_gone(family: list[psutil.Process]) -> bool:
    return not any(lives(process) for process in family)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_and_is_no_failure(
    up: Callable[..., Foreground], number: int, tmp_path: Path
) -> None:
    foreground = up()
    family = foreground.wait_until_up()
    foreground.process.send_signal(number)
    assert foreground.process.wait(LIMIT) == 0, foreground.output
    assert are_gone(family)
    assert [path.name for path in (tmp_path / ".chiffon").iterdir()] == ["lock"]


def test_nohup_keeps_it_up_when_the_terminal_is_closed(up: Callable[..., Foreground]) -> None:
    foreground = up(before=("nohup",))
    family = foreground.wait_until_up()
    foreground.process.send_signal(signal.SIGHUP)
    the_agent(family).kill()
    assert foreground.process.wait(LIMIT) == 1, "it had stopped by itself"


def test_a_signal_while_it_comes_up_leaves_nothing(up: Callable[..., Foreground]) -> None:
    foreground = up()
    until(lambda: "Postgres" in foreground.output, patience=LIMIT)
    leader = psutil.Process(foreground.process.pid)
    family = leader.children(recursive=True)
    foreground.process.send_signal(signal.SIGTERM)
    assert foreground.process.wait(LIMIT) == 0, foreground.output
    assert are_gone(family)


def test_a_killed_stack_leaves_no_process(up: Callable[..., Foreground]) -> None:
    foreground = up()
    family = foreground.wait_until_up()
    foreground.process.kill()
    until(lambda: are_gone(family), patience=LIMIT)
    until(lambda: not foreground.env_file.exists(), patience=LIMIT)


def test_a_process_that_ends_is_named_with_its_last_words_and_ends_the_rest(up: Callable[..., Foreground]) -> None:
    foreground = up()
    family = foreground.wait_until_up()
    the_agent(family).kill()
    assert foreground.process.wait(LIMIT) == 1
    assert "agent1 ended with -9\nthe reason" in foreground.output
    assert are_gone(family)
    assert not foreground.env_file.exists()


def test_it_ends_when_what_started_it_was_killed(up: Callable[..., Foreground]) -> None:
    foreground = up("--with-parent", beneath=True)
    family = foreground.wait_until_up()
    foreground.process.kill()
    until(lambda: are_gone(family), patience=LIMIT)
    until(lambda: not foreground.env_file.exists(), patience=LIMIT)


def test_two_run_side_by_side_and_the_newer_one_is_announced(up: Callable[..., Foreground]) -> None:
    older = up()
    older.wait_until_up()
    announced = older.env_file.read_text()
    newer = up()
    newer.wait_until_up()
    assert newer.env_file.read_text() != announced
    older.process.terminate()
    assert older.process.wait(LIMIT) == 0
    assert newer.env_file.exists()
    assert newer.process.poll() is None


def test_servers_given_by_url_are_used_and_outlive_it(
    up: Callable[..., Foreground], broker_url: str, database_url: str
) -> None:
    foreground = up(CHIFFON_BROKER_URL=broker_url, CHIFFON_DATABASE_URL=database_url)
    family = foreground.wait_until_up()
    assert len(family) == 3  # itself, its guardian and the one program: no server
    assert f"CHIFFON_DATABASE_URL={database_url}\n" in foreground.env_file.read_text()
    foreground.process.terminate()
    assert foreground.process.wait(LIMIT) == 0, foreground.output


def test_a_port_that_is_taken_is_refused_at_once(up: Callable[..., Foreground], broker_url: str) -> None:
    port = broker_url.rpartition(":")[2].partition("/")[0]
    foreground = up(CHIFFON_API_PORT=port)
    assert foreground.process.wait(LIMIT) == 1
    assert f"something listens on port {port} already" in foreground.output
