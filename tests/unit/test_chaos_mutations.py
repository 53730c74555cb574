"""The mutation check still knows what it takes out, and who has to notice."""

from __future__ import annotations

import pytest

from tests.chaos.mutations import MUTATIONS, REPOSITORY, Mutation

BY_NAME = pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)


@BY_NAME
def test_what_is_taken_out_is_there_once(mutation: Mutation) -> None:
    assert (REPOSITORY / mutation.file).read_text().count(mutation.there) == 1


@BY_NAME
def test_every_test_that_has_to_notice_is_there(mutation: Mutation) -> None:
    for test in mutation.tests:
        file, _, name = test.partition("::")
        assert f"def {name}(" in (REPOSITORY / file).read_text()
