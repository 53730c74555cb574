"""`chiffon demo` and `chiffon up`, whole: real work, a table of outcomes, an exit code, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from chiffon.devstack.guardian import lives
from tests.e2e.waiting import eventually
from tests.services import Services

CHECKOUT = Path(__file__).parents[2]
LIMIT = 120.0

pytestmark = pytest.mark.e2e


@pytest.fixture
def checkout(services: Services, tmp_path: Path) -> Path:
    """A folder as a checkout has it, with two documents, so that stacks of the developer's are not touched."""
    for name in ("workers", "wsgi.py", "celeryconfig.py"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    (tmp_path / "docs" / "deeper").mkdir(parents=True)
    (tmp_path / "docs" / "one.md").write_text("# One\n")
    (tmp_path / "docs" / "deeper" / "two words.md").write_text("# Zwei, été, 你好\n")
    return tmp_path


def chiffon(checkout: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [Path(sys.executable).with_name("chiffon"), *arguments],
        cwd=checkout,
        env={**os.environ, "COLUMNS": "200", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_the_demo_shows_every_outcome_and_is_content(checkout: Path) -> None:
    begun = time.monotonic()
    demo = chiffon(checkout, "demo")
    printed, _ = demo.communicate(timeout=LIMIT)
    assert demo.returncode == 0, printed
    assert time.monotonic() - begun < LIMIT
    rows = [line for line in printed.splitlines() if line.startswith(" ✓")]
    assert sum("docs/" in row for row in rows) == 2
    assert sum("echo, priority" in row for row in rows) == 5
    assert sum("http.request" in row for row in rows) == 1
    assert sum("failed" in row for row in rows) == 2
    assert "Every outcome is the expected one." in printed


@pytest.mark.parametrize("family", ["sha256", "fail"])
def test_the_demo_fails_when_one_outcome_is_not_the_expected_one(checkout: Path, family: str) -> None:
    demo = chiffon(checkout, "demo", CHIFFON_DEMO_BREAK=family)
    printed, _ = demo.communicate(timeout=LIMIT)
    assert demo.returncode == 1, printed
    assert "NOT as expected: 2 of 10." in printed


def test_a_killed_stack_leaves_no_broker_no_ledger_no_api_and_no_agent(checkout: Path) -> None:
    up = chiffon(checkout, "up")
    assert up.stdout is not None
    assert any("Ctrl-C stops it" in line for line in up.stdout)
    family = psutil.Process(up.pid).children(recursive=True)
    commands = " ".join(" ".join(process.cmdline()) for process in family)
    for program in ("beam", "epmd", "postgres", "gunicorn", "agent1", "agent2", "flower"):
        assert program in commands
    up.kill()
    eventually("everything to be gone", lambda: not any(lives(process) for process in family))
    up.communicate()
