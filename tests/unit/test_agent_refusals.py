"""`celery -A chiffon worker` says in one sentence why it cannot begin, and ends with an exit code that is not 0."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chiffon.agent.app import create_app
from chiffon.config import Settings, SettingsError
from chiffon.devstack.process import inherited_environment
from chiffon.domain.discovery import WorkersNotFound

REPOSITORY = Path(__file__).parents[2]
NOWHERE = {
    "CHIFFON_BROKER_URL": "amqp://127.0.0.1:1//",
    "CHIFFON_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
}
PATCHERS = {
    "gevent": {"gevent/__init__.py": "", "gevent/monkey.py": "patch_all = list\n", "gevent/signal.py": ""},
    "eventlet": {
        "eventlet/__init__.py": "monkey_patch = list\n",
        "eventlet/debug.py": "",
        "greenlet.py": "class GreenletExit(BaseException): ...\n",
    },
}
"""What Celery imports of a green pool's package before it looks for an application."""


def refusal(*arguments: str, path: Path | None = None, **settings: str) -> str:
    """What an agent that is started so says before it ends, which is to be one line."""
    given = {f"CHIFFON_{name.upper()}": value for name, value in settings.items()}
    folders = [str(folder) for folder in (path, REPOSITORY) if folder]
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "chiffon", "worker", *arguments],
        env=inherited_environment() | NOWHERE | given | {"PYTHONPATH": ":".join(folders)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode not in {0, -9}, done.stdout
    (line,) = done.stderr.splitlines()
    return line


def test_a_wrong_setting_is_one_sentence() -> None:
    assert refusal(max_crashes="none").startswith("chiffon: CHIFFON_MAX_CRASHES: ")


def test_a_package_of_work_that_is_not_there_is_one_sentence() -> None:
    assert refusal(workers="nowhere").startswith("chiffon: there is no package 'nowhere' here")


def test_a_database_that_the_driver_cannot_reach_by_its_url_is_one_sentence() -> None:
    said = refusal(database_url="postgresql://user:hunter2@127.0.0.1/chiffon?nonsense=1")
    assert said.startswith("chiffon: CHIFFON_DATABASE_URL: ")
    assert "nonsense" in said
    assert "hunter2" not in said


def test_a_queue_that_no_work_type_asks_for_is_one_sentence_that_names_the_others() -> None:
    assert refusal("-Q", "work_queue,nosuch") == (
        "chiffon: no work type asks for the queue 'nosuch'; there are: work_queue"
    )


@pytest.mark.parametrize("pool", PATCHERS)
def test_a_green_pool_is_refused_in_one_sentence(pool: str, tmp_path: Path) -> None:
    for name, text in PATCHERS[pool].items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    said = refusal("-P", pool, path=tmp_path)
    assert said.startswith("chiffon: this pool cannot stop a run that is over its limit")
    assert said.endswith("use -P prefork, or -P threads")


def test_who_makes_the_application_by_hand_gets_an_exception() -> None:
    with pytest.raises(WorkersNotFound):
        create_app(Settings(workers="nowhere"))
    with pytest.raises(SettingsError, match="CHIFFON_DATABASE_DIRECT_URL"):
        create_app(Settings(database_direct_url="postgresql://127.0.0.1/chiffon?nonsense=1"))
