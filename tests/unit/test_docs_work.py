"""The page on writing work, held against the code: its options, its examples and their tests."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from chiffon import Fail, Retry, work
from chiffon.domain.context import WorkContext
from chiffon.domain.work import registry
from tests.compose import REPOSITORY
from tests.e2e.readme_commands import parse
from tests.unit.loopback import Server, serving

PAGE = (REPOSITORY / "docs" / "work.md").read_text()
FILES = {block.options["title"]: block.text for block in parse(PAGE) if "title" in block.options}
CONTEXT = WorkContext("task", "trace", "request", 1, None, lambda percent, note: None, lambda: False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a reader has written the page's files."""
    for name, text in {"workers/__init__.py": "", **FILES}.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text + "\n")
    return tmp_path


@pytest.fixture
def orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module that charges for orders."""
    (tmp_path / "orders_of_the_page.py").write_text(FILES["workers/orders.py"])
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("orders_of_the_page")
    registry._types.pop("orders.charge")
    del sys.modules["orders_of_the_page"]


@pytest.fixture
def payments(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """What takes the payments, a real server."""
    with serving() as server:
        monkeypatch.setenv("PAYMENTS_URL", server.url("/"))
        yield server


def run(folder: Path, *arguments: str) -> str:
    """What Python says in a folder."""
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_table_of_options_is_the_signature() -> None:
    rows = PAGE.partition("## Options")[2].partition("##")[0].splitlines()
    named = [row.split("`")[1] for row in rows if row.startswith("| `") and "@work" not in row]
    assert named == list(inspect.signature(work).parameters)


def test_the_table_of_the_context_is_what_it_has() -> None:
    rows = PAGE.partition("## The context")[2].partition("##")[0].splitlines()
    cells = " ".join(row.split("|")[1] for row in rows if row.startswith("| `"))
    has = [name for name in (*WorkContext.__dataclass_fields__, *vars(WorkContext)) if not name.startswith("_")]
    assert [name for name in has if f"`{name}" not in cells] == []


def test_the_tests_of_the_page_pass(folder: Path) -> None:
    assert "2 passed" in run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_files.py")


def test_a_celery_task_of_the_page_runs_where_it_is_called(folder: Path) -> None:
    said = run(folder, "-c", "from workers.letters import send; print(send('me'), send.apply(args=['me']).get())")
    assert said == "sent to me sent to me\n"


def test_an_order_is_charged_under_the_tasks_id(orders: ModuleType, payments: Server) -> None:
    payments.answers("/", 200, b'{"receipt": "r-1"}')
    assert orders.charge(CONTEXT, "order-7", 500) == {"receipt": "r-1"}
    assert payments.seen[0].headers["idempotency-key"] == "task"


def test_who_asks_for_patience_is_asked_again_then(orders: ModuleType, payments: Server) -> None:
    payments.answers("/", 429, Retry_After="30")
    with pytest.raises(Retry) as asked:
        orders.charge(CONTEXT, "order-7", 500)
    assert asked.value.after == 30


def test_a_declined_card_is_not_tried_again(orders: ModuleType, payments: Server) -> None:
    payments.answers("/", 402)
    with pytest.raises(Fail, match="order-7 was declined"):
        orders.charge(CONTEXT, "order-7", 500)
