"""The Dockerfile, which nothing builds in CI: what can be known without an engine."""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

from tests.compose import REPOSITORY

DOCKERFILE = REPOSITORY / "Dockerfile"
COPIED = [
    source
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE.read_text(), re.MULTILINE)
    for source in line.split()[:-1]
]


def test_the_linter_has_nothing_to_say() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_it_copies_is_there_and_reaches_the_builder() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert ignored[1] == "*"
    for source in COPIED:
        assert (REPOSITORY / source).exists(), source
    assert set(COPIED) == kept


def test_no_secret_and_no_leftover_reaches_the_builder() -> None:
    for name in (".env", ".git", ".venv", ".chiffon", "tests"):
        assert not any(fnmatch(name, source) for source in COPIED)


def test_it_does_not_run_as_root() -> None:
    last_stage = DOCKERFILE.read_text().rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.+)$", last_stage, re.MULTILINE) == ["999:999"]
