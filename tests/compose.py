"""`docker-compose.yml` as Compose reads it: variables put in, and each service's environment resolved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parents[1]
FILE = REPOSITORY / "docker-compose.yml"

Service: TypeAlias = dict[str, Any]

_VARIABLE = re.compile(
    r"\$(?:\$|(?P<bare>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?:(?P<how>:?[-?])(?P<other>[^}]*))?\})"
)


class Required(Exception):
    """Compose would stop here: a variable that must have a value has none. Holds its name and what is said of it."""


def load() -> dict[str, Any]:
    """The file with its anchors and merges resolved, and its variables as they are written."""
    found: dict[str, Any] = YAML(typ="safe").load(FILE)
    return found


def variables(node: Any) -> set[str]:
    """The names of every variable that is written in ``node``, or passed on by it from `.env`."""
    text = "\n".join(_texts(node))
    named = {found["name"] or found["bare"] for found in _VARIABLE.finditer(text)} - {None}
    return named | _passed_on(node)


def resolved(node: Any, given: Mapping[str, str]) -> Any:
    """``node`` with every variable put in. Raises Required."""
    if isinstance(node, str):
        return _interpolated(node, given)
    if isinstance(node, list):
        return [resolved(item, given) for item in node]
    if isinstance(node, dict):
        return {name: resolved(value, given) for name, value in node.items()}
    return node


def environment(service: Service, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a container of ``service``: what has no value there comes from ``given``, or is left out."""
    found = {}
    for name, value in service.get("environment", {}).items():
        if value is not None:
            found[name] = _interpolated(str(value), given)
        elif name in given:
            found[name] = given[name]
    return found


def _interpolated(text: str, given: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        name, how, other = found["name"] or found["bare"], found["how"] or "", found["other"] or ""
        if name is None:
            return "$"
        said = given.get(name)
        if said or (said is not None and not how.startswith(":")):
            return said
        if how.endswith("?"):
            raise Required(name, other)
        return other if how.endswith("-") else ""

    return _VARIABLE.sub(value, text)


def _texts(node: Any) -> list[str]:
    if isinstance(node, str):
        return [node]
    if isinstance(node, list):
        return [text for item in node for text in _texts(item)]
    if isinstance(node, dict):
        return [text for item in node.values() for text in _texts(item)]
    return []


def _passed_on(node: Any) -> set[str]:
    if isinstance(node, list):
        return {name for item in node for name in _passed_on(item)}
    if not isinstance(node, dict):
        return set()
    own = {name for name, value in (node.get("environment") or {}).items() if value is None}
    return own | {name for item in node.values() for name in _passed_on(item)}
