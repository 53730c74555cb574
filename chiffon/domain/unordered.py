"""Sets have no order, and JSON has: what is dumped of a set is brought into one that is always the same."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from chiffon.domain.values import canonical


def has_sets(model: type[BaseModel]) -> bool:
    """Whether a value of the model may have a set in it."""
    return "'uniqueItems': True" in str(model.model_json_schema())


def ordered(value: Any, dumped: Any) -> Any:
    """``dumped``, what pydantic makes of ``value`` as JSON, with the items of each set sorted."""
    match value, dumped:
        case (set() | frozenset(), list()) if len(value) == len(dumped):
            return sorted((ordered(*pair) for pair in zip(value, dumped, strict=True)), key=canonical)
        case (list() | tuple(), list()) if len(value) == len(dumped):
            return [ordered(*pair) for pair in zip(value, dumped, strict=True)]
        case dict(), dict() if len(value) == len(dumped):
            return {name: ordered(item, dumped[name]) for name, item in zip(dumped, value.values(), strict=True)}
        case BaseModel(), dict():
            return dumped | {
                name: ordered(item, dumped[name]) for name, item in _members(value).items() if name in dumped
            }
        case _:
            return dumped


def _members(model: BaseModel) -> dict[str, Any]:
    fields = type(model).model_fields.items()
    named = {field.serialization_alias or field.alias or name: getattr(model, name) for name, field in fields}
    return named | (model.model_extra or {})
