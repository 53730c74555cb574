"""Whatever ends the owner, SIGKILL included, nothing that it started is left, and nothing else is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from chiffon.devstack.guardian import lives
from chiffon.devstack.ports import is_free
from tests.racing import until

OWNER = """
import json, subprocess, sys, time
from pathlib import Path
from chiffon.devstack.guardian import Guardian
from chiffon.devstack.postgres import PrivatePostgres
from chiffon.devstack.rabbitmq import PrivateRabbitMQ

folder = Path(sys.argv[1])
guardian = Guardian()
rabbitmq, postgres = PrivateRabbitMQ(folder / "rabbitmq"), PrivatePostgres(folder / "postgres")
for service in (rabbitmq, postgres):
    guardian.remove_at_end(service.data)
    service.start()
print(json.dumps({
    "pids": [process.pid for service in (rabbitmq, postgres) for process in service.processes],
    "ports": [rabbitmq.port, postgres.port, rabbitmq._epmd_port],
    "folders": [str(service.data) for service in (rabbitmq, postgres)],
}), flush=True)
time.sleep(600)
"""

STARTS_ONE_PROCESS = """
import subprocess, sys, time
from chiffon.devstack.guardian import Guardian
guardian = Guardian()
subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
time.sleep(600)
"""

STUBBORN = """
import os, signal, time
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(600)
"""

DAEMON = f"""
import os
if os.fork():
    os._exit(0)
os.setsid()
{STUBBORN}
"""

NESTED = f"""
import os, subprocess, sys
print(os.getpid(), flush=True)
subprocess.run([sys.executable, '-c', {STARTS_ONE_PROCESS!r}, {STUBBORN!r}])
"""


@pytest.fixture
def start(services: object) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def run(script: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", script, *arguments]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def is_gone(pid: int) -> bool:
    try:
        return not lives(psutil.Process(pid))
    except psutil.NoSuchProcess:
        return True


def test_a_killed_owner_leaves_no_rabbitmq_no_epmd_no_postgres_and_no_data(start: Any, tmp_path: Path) -> None:
    owner = start(OWNER, str(tmp_path))
    told = first_line(owner)
    family = psutil.Process(owner.pid).children(recursive=True)
    assert {process.pid for process in family} >= set(told["pids"])
    assert all(Path(folder).exists() for folder in told["folders"])
    owner.kill()
    until(lambda: not any(lives(process) for process in family))
    assert all(is_free(port) for port in told["ports"])
    until(lambda: not any(Path(folder).exists() for folder in told["folders"]))


def test_a_process_that_ignores_every_polite_signal_is_ended_too(start: Any) -> None:
    owner = start(STARTS_ONE_PROCESS, STUBBORN)
    stubborn = first_line(owner)
    owner.kill()
    until(lambda: is_gone(stubborn))


def test_a_stopped_process_is_ended_too(start: Any) -> None:
    owner = start(STARTS_ONE_PROCESS, STUBBORN)
    stopped = first_line(owner)
    os.kill(stopped, signal.SIGSTOP)
    owner.kill()
    until(lambda: is_gone(stopped))


def test_a_daemon_that_left_its_parent_is_ended_too(start: Any) -> None:
    owner = start(STARTS_ONE_PROCESS, DAEMON)
    daemon = first_line(owner)
    until(lambda: psutil.Process(daemon).ppid() != owner.pid)
    owner.kill()
    until(lambda: is_gone(daemon))


def test_the_owner_of_an_owner_ends_what_the_inner_one_started(start: Any) -> None:
    owner = start(STARTS_ONE_PROCESS, NESTED)
    inner, stubborn = first_line(owner), first_line(owner)
    owner.kill()
    until(lambda: is_gone(inner) and is_gone(stubborn))


def test_the_processes_of_another_owner_are_left_alone(start: Any) -> None:
    one, another = start(STARTS_ONE_PROCESS, STUBBORN), start(STARTS_ONE_PROCESS, STUBBORN)
    ended, kept = first_line(one), first_line(another)
    one.kill()
    until(lambda: is_gone(ended))
    assert not is_gone(kept)
