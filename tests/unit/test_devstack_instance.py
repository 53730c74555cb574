"""The folders of stacks: each its own, the newest announced, those of the dead removed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from chiffon.devstack.instance import Instance

VARIABLES = {"CHIFFON_API_URL": "http://127.0.0.1:1", "CHIFFON_API_KEY": "it's a $ecret"}


def test_the_file_gives_a_shell_what_programs_started_there_will_need(tmp_path: Path) -> None:
    path = Instance(tmp_path / ".chiffon").publish(VARIABLES)
    script = f". {path} && python3 -c 'import os; print(os.environ[\"CHIFFON_API_KEY\"])'"
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout == "it's a $ecret\n"


def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    path = Instance(tmp_path / ".chiffon").publish(VARIABLES)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_stack_withdraws_its_own_file(tmp_path: Path) -> None:
    instance = Instance(tmp_path)
    path = instance.publish(VARIABLES)
    instance.withdraw()
    assert not path.is_symlink()


def test_a_stack_leaves_the_file_of_a_newer_one(tmp_path: Path) -> None:
    older, newer = Instance(tmp_path), Instance(tmp_path)
    older.publish(VARIABLES)
    path = newer.publish(VARIABLES)
    older.withdraw()
    older.remove()
    assert path.resolve().parent == newer.folder


def test_a_new_stack_removes_the_folder_of_one_that_ended_and_of_no_other(tmp_path: Path) -> None:
    ended, alive = Instance(tmp_path), Instance(tmp_path)
    ended.withdraw()
    newest = Instance(tmp_path)
    assert not ended.folder.exists()
    assert alive.folder.exists()
    assert newest.folder.exists()
