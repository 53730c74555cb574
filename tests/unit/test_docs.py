"""What the pages say, held against the code: tables, schema, commands, routes, settings, tests and links."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from celery.bin.celery import celery as celery_command
from flask.cli import FlaskGroup

from chiffon.cli import main
from chiffon.config import PREFIX, Settings
from chiffon.domain.envelope import MessageEnvelope
from chiffon.domain.states import BIRTHS, CELERY_STATES, STEPS, State
from tests.api import api
from tests.compose import REPOSITORY
from tests.e2e.readme_commands import parse

DOCS = REPOSITORY / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *REPOSITORY.glob("*.md")])
SCHEMA = DOCS / "message-envelope.schema.json"
FROM_THE_STACK = {"API_URL", "API_KEY", "FLOWER_URL", "FLOWER_AUTH"}
"""What `.chiffon/env` holds beside settings."""

FOR_TESTS = {"TEST_BROKER_URL", "TEST_POOL"}


def named(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def table(page: Path, heading: str) -> dict[str, list[str]]:
    """The first table under ``heading``: by what its first cell quotes (or is), what the second quotes."""
    lines = iter(page.read_text().splitlines())
    for line in lines:
        if line.strip("# ") == heading:
            break
    rows: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("|"):
            first, second = (cell.strip() for cell in line.strip("|").split("|"))
            rows[first.strip("`")] = re.findall(r"`(\w+)`", second)
        elif rows:
            break
    return {name: cells for name, cells in rows.items() if name not in {"from", "Chiffon", "---"}}


def quoted(page: Path) -> Iterator[str]:
    """Each command that a page names: the lines of its scripts, and what stands in backticks."""
    text = page.read_text()
    for block in parse(text):
        yield from (line.partition("#")[0].strip() for line in block.script.splitlines())
    outside = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", outside)


def test_the_table_of_steps_is_the_one_of_the_code() -> None:
    shown = table(DOCS / "architecture.md", "The life of a task")
    assert set(shown.pop("(new)")) == BIRTHS
    assert {State(name): {State(step) for step in steps} for name, steps in shown.items()} == dict(STEPS)


def test_the_diagram_of_states_shows_only_lawful_steps() -> None:
    found = [block for block in parse((DOCS / "architecture.md").read_text()) if "stateDiagram" in block.text]
    arrows = re.findall(r"(\S+) --> (\w+)", found[0].text)
    assert len(arrows) == found[0].text.count("-->")
    for origin, target in arrows:
        assert State(target) in (BIRTHS if origin == "[*]" else STEPS[State(origin)])
    assert {target for _, target in arrows} == set(State)


@pytest.mark.parametrize("room", ["agent", "dispatch"])
def test_each_module_is_on_the_map_once(room: str) -> None:
    text = (DOCS / "architecture.md").read_text().partition(f"### The modules of `{room}/`")[2]
    shown = re.findall(r"`(\w+)`", text.partition("\n#")[0])
    assert sorted(shown) == sorted(path.stem for path in (REPOSITORY / "chiffon" / room).glob("[!_]*.py"))


def test_the_table_of_celerys_words_is_the_one_of_the_code() -> None:
    shown = table(DOCS / "celery.md", "Celery's words for the states")
    assert {name: [word] for name, word in CELERY_STATES.items()} == shown


def test_the_schema_of_the_envelope_is_the_one_of_the_code() -> None:
    meant = {"$schema": "https://json-schema.org/draft/2020-12/schema", **MessageEnvelope.model_json_schema()}
    assert json.loads(SCHEMA.read_text()) == meant, f"{SCHEMA.name} should be:\n{json.dumps(meant, indent=2)}"


def test_the_envelope_on_the_page_is_one() -> None:
    shown = [block.text for block in parse((DOCS / "messages.md").read_text()) if block.language == "json"]
    MessageEnvelope.model_validate(json.loads(shown[0]))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(REPOSITORY), link
        if anchor:
            assert anchor in {_anchor(line) for line in target.read_text().splitlines() if line.startswith("#")}, link


def test_every_page_can_be_found_from_the_first() -> None:
    indexes = {DOCS / "index.md", DOCS / "decisions" / "index.md"}
    linked = {
        (index.parent / link).resolve() for index in indexes for link in re.findall(r"\]\(([^)#]+)", index.read_text())
    }
    assert set(DOCS.rglob("*.md")) - indexes <= linked


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for command in quoted(page):
        match command.split():
            case ["make", target, *_]:
                assert target in targets, command
            case ["chiffon", *words]:
                assert _takes(main, words), command
            case ["celery", "-A", "chiffon", *words]:
                assert _takes(celery_command, words), command
            case ["flask", *words]:
                assert _takes(FlaskGroup(), words), command


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_route_exists(page: Path) -> None:
    routes = {
        (method, rule.rule.replace("<", "{").replace(">", "}"))
        for rule in api().application.url_map.iter_rules()
        for method in rule.methods or ()
    }
    for words in quoted(page):
        if found := re.match(r"(GET|POST|PUT|PATCH|DELETE) (/[\w{}/.-]*)", words):
            assert (found[1], found[2]) in routes, words


def test_every_route_has_an_example() -> None:
    scripts = "\n".join(block.script for block in parse((DOCS / "http-api.md").read_text()))
    for rule in api().application.url_map.iter_rules():
        if hasattr(api().application.view_functions[rule.endpoint], "operation"):
            assert re.search(re.sub("<.*?>", "\\\\$[A-Z]+", rule.rule) + r"[\s\"?]", scripts), rule.rule


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_setting_exists(page: Path) -> None:
    settings = {name.upper() for name in Settings.model_fields}
    for name in re.findall(rf"\b{PREFIX}([A-Z_]+[A-Z])\b", page.read_text()):
        assert name in settings | FROM_THE_STACK | FOR_TESTS, name


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_test_that_is_cited_exists(page: Path) -> None:
    tests = {
        node.name
        for file in (REPOSITORY / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    for name in re.findall(r"`(test_\w+)`", page.read_text()):
        assert name in tests, name


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_that_is_named_exists(page: Path) -> None:
    for name in quoted(page):
        if re.fullmatch(r"(chiffon|tests|workers|docs)/[\w./-]+\.\w+", name):
            assert (REPOSITORY / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_and_json_can_be_read(page: Path) -> None:
    for block in parse(page.read_text()):
        if block.language == "python":
            compile(block.text, f"{page.name}:{block.line}", "exec")
        elif block.language == "json":
            json.loads(block.text)


def _takes(command: Any, words: list[str]) -> bool:
    """Whether the words that begin with letters, as far as there are groups of commands, name one."""
    if not words or not isinstance(command, click.Group):
        return not isinstance(command, click.Group) or not words
    found = command.get_command(click.Context(command), words[0])
    return found is not None and _takes(found, words[1:])


def _anchor(heading: str) -> str:
    """The anchor that a heading gets where Markdown is shown."""
    return re.sub(r"[^\w\- ]", "", heading.strip("# ").lower()).replace(" ", "-")
