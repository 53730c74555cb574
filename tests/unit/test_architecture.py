"""The house rules that a machine can see: doors have signs, imports point down, one room reads the environment."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORK = ROOT / "workers"
TESTS = ROOT / "tests"
PRODUCT = {path: ast.parse(path.read_text(), path) for path in sorted((ROOT / "chiffon").rglob("*.py"))}
AROUND = {path: ast.parse(path.read_text(), path) for room in (WORK, TESTS) for path in sorted(room.rglob("*.py"))}
EVERYTHING = PRODUCT | AROUND
STARTERS = ("chiffon/config.py", "chiffon/cli.py", "chiffon/devstack/")
"""Who may read the environment: `config` for everybody, the others for the processes that they start."""

WAITERS = ("tests/racing.py", "tests/e2e/waiting.py")
"""Who may sleep in a test: between two looks at a condition, and not for ever."""

BUSY = ("tests/chaos/", "tests/e2e/work/", "tests/e2e/hanging/", "tests/traps/deeds.py", "tests/plain_celery.py")
"""No tests: work that takes its time, and the machine that breaks everything by a plan."""


def named(path: Path) -> str:
    """A path as the rules name it."""
    return path.relative_to(ROOT).as_posix()


def imported_by(tree: ast.AST) -> Iterator[str]:
    """The modules that a piece of code imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def attributes_of(tree: ast.AST) -> set[str]:
    """Each ``a.b`` in a piece of code."""
    return {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }


def loaded_by(statement: str) -> set[str]:
    """The packages that a statement loads, in a new interpreter."""
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_module_has_a_door_sign() -> None:
    bare = [named(path) for path, tree in EVERYTHING.items() if tree.body and not ast.get_docstring(tree)]
    assert not bare


def test_nothing_imports_the_files_that_are_the_users() -> None:
    users = {"celeryconfig", "wsgi"}
    offenders = [
        named(path)
        for path, tree in EVERYTHING.items()
        if not path.is_relative_to(TESTS) and users & {name.partition(".")[0] for name in imported_by(tree)}
    ]
    assert not offenders


def test_the_product_imports_no_work_by_name() -> None:
    offenders = [
        named(path)
        for path, tree in PRODUCT.items()
        if {"workers", "tests"} & {name.partition(".")[0] for name in imported_by(tree)}
    ]
    assert not offenders


def test_one_module_reads_the_environment() -> None:
    doors = {"os.environ", "os.environb", "os.getenv", "os.putenv"}
    readers = [
        named(path)
        for path, tree in PRODUCT.items()
        if doors & (attributes_of(tree) | set(imported_by(tree))) and not named(path).startswith(STARTERS)
    ]
    assert not readers


@pytest.mark.parametrize("room", ["domain", "dispatch"])
def test_no_rule_reads_the_wall_clock(room: str) -> None:
    clocks = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.localtime"}
    readers = [
        named(path)
        for path, tree in PRODUCT.items()
        if path.is_relative_to(ROOT / "chiffon" / room) and clocks & attributes_of(tree)
    ]
    assert not readers


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "common", "helpers", "helper", "manager", "misc", "tools", "stuff"}
    assert not [named(path) for path in EVERYTHING if empty & {path.stem, path.parent.name}]


def test_no_module_hides_one_of_the_standard_library() -> None:
    tops = {path.stem for room in (ROOT / "chiffon", WORK) for path in room.glob("*.py")} - {"__init__", "http"}
    assert not tops & sys.stdlib_module_names


def test_no_test_pretends() -> None:
    pretenders = [
        named(path)
        for path, tree in AROUND.items()
        if any(
            name.partition(".")[0] in {"mock", "pytest_mock"} or "unittest.mock" in name for name in imported_by(tree)
        )
    ]
    assert not pretenders


def idle_waits(tree: ast.AST) -> Iterator[int]:
    """The lines that wait for a time, or without an end: a sleep, an event that nobody else has, an empty loop."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.Attribute(value=ast.Name("time"), attr="sleep")
                | ast.Attribute(value=ast.Call(func=ast.Name("Event") | ast.Attribute(attr="Event")), attr="wait")
                | ast.While(body=[ast.Pass()])
            ):
                yield node.lineno
            case ast.ImportFrom() if "time.sleep" in imported_by(node):
                yield node.lineno


@pytest.mark.parametrize(
    "code",
    [
        "for _ in range(9): time.sleep(1)",
        "nap = time.sleep",
        "from time import monotonic, sleep",
        "threading.Event().wait(0.02)",
        "Event().wait(timeout=1)",
        "while not is_gone(): pass",
    ],
)
def test_whoever_waits_idly_is_seen(code: str) -> None:
    assert list(idle_waits(ast.parse(code))) == [1]


def test_a_test_waits_for_a_condition() -> None:
    idlers = [
        f"{named(path)}:{line}"
        for path, tree in AROUND.items()
        if path.is_relative_to(TESTS) and not named(path).startswith((*WAITERS, *BUSY))
        for line in idle_waits(tree)
    ]
    assert not idlers


def test_importing_chiffon_costs_no_engine() -> None:
    engines = {"celery", "kombu", "amqp", "flask", "apiflask", "sqlalchemy", "psycopg2", "alembic", "structlog"}
    assert not engines & loaded_by("import chiffon")


def test_work_can_be_imported_where_no_engine_is() -> None:
    assert not {"celery", "kombu", "flask", "sqlalchemy", "psycopg2"} & loaded_by("import workers.echo")


def test_the_contracts_between_the_rooms_are_kept() -> None:
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
