"""Parameters: the schema and the strict types that a function's hints ask for."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, Field

from chiffon.domain.context import WorkContext
from chiffon.domain.errors import InvalidParameters
from chiffon.domain.work import WorkType, WorkTypes, work
from tests.unit.contexts import context


def of(function: Any) -> WorkType:
    """The work type that a function becomes."""
    types = WorkTypes()
    work("kind", into=types)(function)
    return types.get("kind")


def problems(function: Any, parameters: dict[str, Any]) -> dict[str, str]:
    """What does not fit, by JSON Pointer."""
    with pytest.raises(InvalidParameters) as caught:
        of(function).validate(parameters)
    return {problem.pointer: problem.detail for problem in caught.value.problems}


def called(function: Any, parameters: dict[str, Any]) -> Any:
    """What the function returns when it is run with these parameters."""
    return of(function).call(parameters, context())


def test_the_hints_are_the_schema() -> None:
    def count(text: str, times: Annotated[int, Field(ge=1, description="How often.")] = 1) -> None: ...

    schema = of(count).schema
    assert schema["type"] == "object"
    assert schema["title"] == "kind"
    assert schema["required"] == ["text"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["text"]["type"] == "string"
    times = schema["properties"]["times"]
    assert (times["type"], times["minimum"], times["default"], times["description"]) == ("integer", 1, 1, "How often.")


@pytest.mark.parametrize("wrong", [True, "3", 3.5, None, [], {}, "three"])
def test_an_integer_is_a_json_number_without_a_fraction(wrong: object) -> None:
    def take(number: int) -> None: ...

    assert list(problems(take, {"number": wrong})) == ["/parameters/number"]


@pytest.mark.parametrize(
    ("hint", "wrong"),
    [
        (str, 3),
        (str, None),
        (bool, 1),
        (bool, "true"),
        (float, "1.5"),
        (float, True),
        (list[int], {"0": 1}),
        (list[int], ["1"]),
        (dict[str, int], []),
        (Literal["a"], "b"),
        (int | None, "3"),
    ],
)
def test_no_json_type_passes_for_another(hint: Any, wrong: object) -> None:
    def take(value: Any) -> None: ...

    take.__annotations__["value"] = hint
    assert all(pointer.startswith("/parameters/value") for pointer in problems(take, {"value": wrong}))


def test_json_says_dates_decimals_enums_tuples_and_models_in_its_own_way() -> None:
    class Color(Enum):
        RED = "red"

    class Point(BaseModel):
        x: int

    def take(when: datetime, much: Decimal, color: Color, pair: tuple[int, str], point: Point, ratio: float) -> Any:
        return when, much, color, pair, point, ratio

    take.__annotations__ |= {"color": Color, "point": Point}
    given_parameters = {
        "when": "2030-01-31T12:00:00Z",
        "much": "1.10",
        "color": "red",
        "pair": [1, "a"],
        "point": {"x": 3},
        "ratio": 2,
    }
    when = datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert called(take, given_parameters) == (when, Decimal("1.10"), Color.RED, (1, "a"), Point(x=3), 2.0)
    assert of(take).canonical(given_parameters)["color"] == "red"


def test_every_parameter_that_does_not_fit_is_named_by_its_pointer() -> None:
    def take(numbers: list[int], options: dict[str, int], name: str) -> None: ...

    found = problems(take, {"numbers": [1, "2"], "options": {"a/b": True}, "nmae": "x"})
    assert set(found) == {"/parameters/numbers/1", "/parameters/options/a~1b", "/parameters/name", "/parameters/nmae"}


def test_a_parameter_that_nobody_declared_is_refused() -> None:
    def take() -> None: ...

    assert list(problems(take, {"surplus": 1})) == ["/parameters/surplus"]


def test_a_default_fills_what_is_left_out_and_belongs_to_the_canonical_form() -> None:
    def take(a: int, b: list[int] = [1], c: str | None = None) -> Any:  # noqa: B006
        b.append(a)
        return a, b, c

    assert of(take).canonical({"a": 0}) == {"a": 0, "b": [1], "c": None}
    assert called(take, {"a": 0}) == (0, [1, 0], None)
    assert called(take, {"a": 0}) == (0, [1, 0], None)  # no run sees what another did to a default


def test_a_set_has_one_canonical_form_whatever_order_it_is_kept_in() -> None:
    class Basket(BaseModel):
        words: frozenset[str]

    def take(words: set[str], deep: dict[str, list[set[int]]], basket: Basket, plain: list[int]) -> None: ...

    take.__annotations__ |= {"basket": Basket}
    words = ["pear", "apple", "plum", "fig", "lime"]
    given = {"words": words, "deep": {"a": [[8, 0, 16]]}, "basket": {"words": words}, "plain": [2, 1]}
    assert of(take).canonical(given) == {
        "words": sorted(words),
        "deep": {"a": [[0, 16, 8]]},  # in the order of their text
        "basket": {"words": sorted(words)},
        "plain": [2, 1],
    }


def test_a_function_that_takes_anything_is_given_anything() -> None:
    def take(a: int, **rest: Any) -> Any:
        return a, rest

    assert called(take, {"a": 1, "b": [2], "p0": 3}) == (1, {"b": [2], "p0": 3})
    assert of(take).canonical({"a": 1, "p0": 3}) == {"a": 1, "p0": 3}
    assert of(take).schema["additionalProperties"] is True


def test_the_hint_of_what_a_function_takes_beside_its_parameters_holds() -> None:
    def take(**labels: str) -> Any:
        return labels

    assert called(take, {"a": "b"}) == {"a": "b"}
    assert list(problems(take, {"a": 1})) == ["/parameters/a"]


def test_a_parameter_may_be_named_as_an_attribute_of_the_model_is() -> None:
    def take(schema: int, json: int, model_config: int, model_fields: int, copy: int, self: int, _own: int) -> Any:
        return schema, json, model_config, model_fields, copy, self, _own

    names = ["schema", "json", "model_config", "model_fields", "copy", "self", "_own"]
    given_parameters = {name: number for number, name in enumerate(names)}
    assert called(take, given_parameters) == tuple(range(7))
    assert list(of(take).schema["properties"]) == names
    assert of(take).canonical(given_parameters) == given_parameters


def test_the_context_is_handed_to_the_parameter_annotated_with_it() -> None:
    def take(a: int, me: WorkContext, **rest: Any) -> Any:
        return a, me.task_id, rest

    assert called(take, {"a": 1, "b": 2}) == (1, "t", {"b": 2})
    assert called(take, {"a": 1, "me": "forged"}) == (1, "t", {})


def test_positional_arguments_fill_the_parameters_in_order_past_the_context() -> None:
    def take(me: WorkContext, a: int, b: int = 0) -> None: ...

    kind = of(take)
    assert kind.bind([1], {"b": 2}) == {"a": 1, "b": 2}
    assert kind.bind([1, 2], {}) == {"a": 1, "b": 2}
    assert kind.bind([], {"b": 2}) == {"b": 2}


def test_too_many_positional_arguments_are_refused() -> None:
    def take(a: int) -> None: ...

    with pytest.raises(InvalidParameters, match="takes 1 parameters, not 2"):
        of(take).bind([1, 2], {})


def test_a_parameter_given_by_place_and_by_name_is_refused() -> None:
    def take(a: int) -> None: ...

    with pytest.raises(InvalidParameters, match="'a' twice") as caught:
        of(take).bind([1], {"a": 1})
    assert caught.value.problems[0].pointer == "/parameters/a"


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800"])
def test_what_json_cannot_say_fits_no_parameter(value: object) -> None:
    def take(value: float | str) -> None: ...

    assert problems(take, {"value": value})


def test_a_check_of_ones_own_speaks_for_itself() -> None:
    def even(value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value

    def take(value: int) -> None: ...

    take.__annotations__["value"] = Annotated[int, AfterValidator(even)]
    assert problems(take, {"value": 3}) == {"/parameters/value": "Value error, must be even"}


KEEPABLE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=9,
)


@given(KEEPABLE)
def test_an_untyped_parameter_arrives_as_it_was_sent(value: Any) -> None:
    def take(value):  # type: ignore[no-untyped-def]
        return value

    assert called(take, {"value": value}) == value
