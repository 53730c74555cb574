"""Finding the work: every module of the named packages is imported, and what is missing is told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chiffon.domain.discovery import WorkersNotFound, import_workers

Package = Callable[..., None]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    """Makes packages on the path, each module with some code in it."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, **modules: str) -> None:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for module, code in {"__init__": "", **modules}.items():
            (folder / f"{module}.py").write_text(code)

    yield make
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_every_module_of_every_package_is_imported(package: Package) -> None:
    package("found_one", a="", b="")
    package("found_one/inner", c="")
    package("found_two", d="")
    import_workers(" found_one , found_two,")
    assert {"found_one.a", "found_one.b", "found_one.inner.c", "found_two.d"} <= sys.modules.keys()


def test_a_single_module_may_hold_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_alone.py").write_text("here = True")
    monkeypatch.syspath_prepend(tmp_path)
    import_workers("found_alone")
    assert sys.modules.pop("found_alone").here


@pytest.mark.parametrize("name", ["found_nowhere", "found_nowhere.inner"])
def test_a_package_that_is_not_there_is_told_with_the_setting(name: str) -> None:
    with pytest.raises(WorkersNotFound, match=rf"no package '{name}'.*CHIFFON_WORKERS"):
        import_workers(name)


def test_what_a_module_itself_cannot_import_is_its_own_error(package: Package) -> None:
    package("found_broken", a="import found_nowhere_either")
    with pytest.raises(ModuleNotFoundError, match="found_nowhere_either"):
        import_workers("found_broken")


def test_what_a_module_raises_is_left_as_it_is(package: Package) -> None:
    package("found_raising", a="1 / 0")
    with pytest.raises(ZeroDivisionError):
        import_workers("found_raising")


@pytest.mark.parametrize("name", ["", " , ,"])
def test_no_name_is_no_work(name: str) -> None:
    import_workers(name)
