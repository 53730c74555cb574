"""The census of the scenarios: a session passes only if all of them ran and passed, or somebody chose among them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.e2e.census import FILE, SCENARIOS

pytest_plugins = ("pytester",)

TESTS = Path(__file__).parents[1]


def run(pytester: pytest.Pytester, *arguments: str, **bodies: str) -> pytest.RunResult:
    """Run a file of scenarios that all pass, but for those in ``bodies``; a body of "" leaves its scenario out."""
    lines = ["import pytest", "pytest_plugins = ('tests.e2e.census',)", "pytestmark = pytest.mark.e2e"]
    for name in SCENARIOS:
        body = bodies.get(name, "pass")
        lines += [f"def {name}():", f"    {body}"] if body else []
    pytester.makeini("[pytest]\nmarkers =\n    e2e: all of it\n")
    pytester.makepyfile(test_other="def test_other(): pass")
    pytester.path.joinpath(FILE).write_text("\n".join(lines))
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def test_all_scenarios_passing_pass(pytester: pytest.Pytester) -> None:
    assert run(pytester, "-m", "e2e").ret == pytest.ExitCode.OK


def test_a_scenario_that_is_not_there_fails_the_session(pytester: pytest.Pytester) -> None:
    result = run(pytester, "-m", "e2e", test_queue_depth_query="")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["MISSING*::test_queue_depth_query:*"])


@pytest.mark.parametrize("body", ["pytest.skip('not today')", "pytest.xfail('some day')"])
def test_a_scenario_that_does_not_pass_fails_the_session(pytester: pytest.Pytester, body: str) -> None:
    assert run(pytester, test_queue_depth_query=body).ret == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(
    "choice", [("-k", "depth"), (f"{FILE}::test_quickstart_is_true",), ("-m", "not e2e"), ("--collect-only",)]
)
def test_whoever_chooses_among_them_is_not_held_to_all(pytester: pytest.Pytester, choice: tuple[str, ...]) -> None:
    assert run(pytester, *choice, test_queue_depth_query="pytest.skip('not today')").ret == pytest.ExitCode.OK


def test_the_file_has_the_scenarios_and_no_others() -> None:
    functions = [node.name for node in ast.parse((TESTS / FILE).read_text()).body if isinstance(node, ast.FunctionDef)]

    assert sorted(name for name in functions if name.startswith("test_")) == sorted(SCENARIOS)
