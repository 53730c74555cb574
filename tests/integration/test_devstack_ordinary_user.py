"""The private RabbitMQ and Postgres run for an ordinary user as they do for root, in that user's own folder."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from chiffon.devstack.postgres import find_programs
from chiffon.devstack.process import Process
from chiffon.devstack.rabbitmq import find_scripts
from tests.conftest import started
from tests.e2e.waiting import eventually
from tests.ordinary_user import NOBODY
from tests.services import Services

REPOSITORY = Path(__file__).parents[2]
LIMIT = 120.0


@pytest.fixture
def home(services: Services) -> Iterator[Path]:
    """A folder that is an ordinary user's own, where that user can reach it."""
    folder = Path(tempfile.mkdtemp(prefix="chiffon-user-", dir="/var/tmp"))
    services.guardian.remove_at_end(folder)
    if os.geteuid() == 0:
        shutil.chown(folder, NOBODY, pwd.getpwnam(NOBODY).pw_gid)
    yield folder
    shutil.rmtree(folder)


def test_an_ordinary_user_has_a_broker_and_a_ledger_in_a_folder_and_nothing_else(home: Path, tmp_path: Path) -> None:
    started(find_programs)
    started(find_scripts)
    child = Process(
        "an ordinary user",
        [sys.executable, "-m", "tests.ordinary_user", home],
        log=tmp_path / "log",
        folder=REPOSITORY,
        environment={"HOME": str(home), "TMPDIR": str(home)},
    )
    child.launch()
    try:
        eventually("it to end", lambda: child.exit_code is not None, within=LIMIT)
    finally:
        child.kill()

    assert child.exit_code == 0, child.tail()
    found = json.loads(child.tail(1))
    assert found["uid"] != 0
    assert set(found["uids"]) == {found["uid"]}
    assert found["postgres"]
    assert found["rabbitmq"]
    assert all(Path(folder).is_relative_to(home) for folder in found["data"])
    assert found["pids"]
    eventually("no process to be left", lambda: not [pid for pid in found["pids"] if psutil.pid_exists(pid)])
