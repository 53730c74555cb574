"""The mutation check still knows what it takes out, and who has to notice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos import mutations
from tests.chaos.mutations import MUTATIONS, REPOSITORY, Mutation, NothingProven, Outcome, red_ones, taken_out

BY_NAME = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)


@BY_NAME
def test_what_is_taken_out_is_there_once(mutation: Mutation) -> None:
    assert (REPOSITORY / mutation.file).read_text().count(mutation.there) == 1


@BY_NAME
def test_every_test_that_has_to_notice_is_there(mutation: Mutation) -> None:
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (REPOSITORY / file).read_text()


TESTS = """
import pytest, time
from mechanism import ANSWER

@pytest.fixture
def broker():
    raise OSError("it did not start")

@pytest.fixture
def ledger():
    yield
    raise OSError("it did not end")

def test_it(): assert ANSWER == 42
def test_it_and_more(): pass
def test_over(broker): assert ANSWER == 42
def test_under(ledger): assert ANSWER == 42
@pytest.mark.parametrize("number", [1, 42])
def test_by_number(number): assert ANSWER == 42 or number == 1
def test_slowly(): time.sleep(0 if ANSWER == 42 else 600)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of one mechanism and its tests."""
    (tmp_path / "mechanism.py").write_text("ANSWER = 42\n")
    (tmp_path / "test_it.py").write_text(TESTS)
    return tmp_path


def without_it(*names: str) -> Mutation:
    return Mutation("the answer", "mechanism.py", "42", "43", tuple(f"test_it.py::{name}" for name in names))


def test_only_a_test_that_fails_has_noticed(tree: Path) -> None:
    mutation = without_it("test_it", "test_it_and_more", "test_by_number")
    assert red_ones(tree, mutation.tests) == []
    assert taken_out(tree, mutation) == Outcome(mutation, survived=("test_it.py::test_it_and_more",))
    assert (tree / "mechanism.py").read_text() == "ANSWER = 42\n"


@pytest.mark.parametrize("name", ["test_over", "test_under"])
def test_a_test_whose_fixture_breaks_has_noticed_nothing(tree: Path, name: str) -> None:
    outcome = taken_out(tree, without_it("test_it", name))
    assert outcome.trouble.startswith("what these need could not be set up, or not put away:")
    assert f"ERROR test_it.py::{name} - OSError: it did not" in outcome.trouble
    with pytest.raises(NothingProven):
        red_ones(tree, [f"test_it.py::{name}"])


def test_tests_that_do_not_end_prove_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mutations, "_PATIENCE", 3)
    assert taken_out(tree, without_it("test_slowly")).trouble == "the tests did not end within 3 s"


def test_tests_that_cannot_be_collected_prove_nothing(tree: Path) -> None:
    mutation = Mutation("the answer", "mechanism.py", "ANSWER = 42", "", ("test_it.py::test_it",))
    assert taken_out(tree, mutation).trouble
