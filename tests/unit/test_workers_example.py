"""The README's agent of one's own: written into a package as a reader would, it is work."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chiffon.domain.context import WorkContext
from chiffon.domain.discovery import import_workers
from chiffon.domain.errors import InvalidParameters
from chiffon.domain.work import WorkType, registry
from tests.compose import REPOSITORY
from tests.e2e.readme_commands import Block, parse

CONTEXT = WorkContext("task", "trace", "request", 1, None, lambda percent, note: None, lambda: False)


def example() -> Block:
    """The first file that the README has its reader write."""
    blocks = parse((REPOSITORY / "README.md").read_text())
    return next(block for block in blocks if block.options.get("title", "").startswith("workers/"))


@pytest.fixture
def text_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkType]:
    """The work type of the example, which lies in a package of its own."""
    package = tmp_path / "my_workers"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "text.py").write_text(example().text)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    import_workers("my_workers")
    yield registry.get("text.count")
    registry._types.pop("text.count")
    for name in ("my_workers", "my_workers.text"):
        del sys.modules[name]


def test_it_takes_ten_lines() -> None:
    assert len(example().text.splitlines()) <= 10


def test_it_is_registered_as_it_says(text_count: WorkType) -> None:
    assert (text_count.description, text_count.timeout, text_count.retries) == ("Count the words of a text.", 30, 3)
    assert text_count.schema["properties"]["text"]["type"] == "string"
    assert text_count.schema["required"] == ["text"]


def test_it_does_its_work(text_count: WorkType) -> None:
    assert text_count.call({"text": "to be done once"}, CONTEXT) == {"words": 4}


@pytest.mark.parametrize("parameters", [{}, {"text": 7}, {"text": "a", "more": "b"}])
def test_its_parameters_are_validated(text_count: WorkType, parameters: dict[str, object]) -> None:
    with pytest.raises(InvalidParameters):
        text_count.validate(parameters)
