"""What Python's json lets in and `jsonb` does not is refused, and the place of it is named."""

from __future__ import annotations

import json
import math
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chiffon.domain.errors import InvalidValue, NotJson
from chiffon.domain.values import MAX_DEPTH, MAX_DIGITS, canonical, check_value, escape, parse, pointer_to

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
KEEPABLE = st.recursive(
    PLAIN | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)


def nested(levels: int) -> list[Any]:
    """A list in a list, ``levels`` of them."""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def refusal(value: object, pointer: str = "") -> tuple[str, str]:
    """Where and why a value is refused."""
    with pytest.raises(InvalidValue) as caught:
        check_value(value, pointer)
    (problem,) = caught.value.problems
    return problem.pointer, problem.detail


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("a\x00b", "NUL"),
        ("\ud800", "lone surrogate"),
        ("ok \udfff", "lone surrogate"),
        (math.nan, "is nan"),
        (math.inf, "is inf"),
        (-math.inf, "is -inf"),
        (10**MAX_DIGITS, "digits"),
        (-(10**MAX_DIGITS), "digits"),
        (b"bytes", "is a bytes"),
        ({1, 2}, "is a set"),
        (datetime(2030, 1, 1), "is a datetime"),
        (Decimal(1), "is a Decimal"),
        (object(), "is a object"),
    ],
)
def test_what_json_or_the_ledger_cannot_keep_is_refused_with_its_place(value: object, why: str) -> None:
    where, told = refusal({"list": [0, {"a/b~c": value}]}, "/parameters")
    assert where == "/parameters/list/1/a~1b~0c"
    assert why in told


@pytest.mark.parametrize("key", ["a\x00b", "\ud800", 7, None, True, ("a",)])
def test_a_name_that_is_no_keepable_text_is_refused(key: object) -> None:
    assert refusal({"members": {key: 1}})[0] == "/members"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -0.0,
        1e308,
        5e-324,
        10**MAX_DIGITS - 1,
        "",
        "grüß 👋 \u2028 \\u0000",
        "\x01\x1f\x7f\ufffe",
        {"": [{}, []]},
        (1, 2),
    ],
)
def test_whatever_else_json_can_say_is_kept(value: object) -> None:
    check_value(value)
    assert parse(canonical(value)) == (list(value) if isinstance(value, tuple) else value)


def test_nesting_ends_at_a_depth_that_every_parser_survives() -> None:
    check_value(nested(MAX_DEPTH))
    assert "deep" in refusal(nested(MAX_DEPTH + 2), "/parameters")[1]
    assert "deep" in refusal(nested(100_000))[1]


def test_a_value_that_holds_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert "deep" in refusal(circle)[1]


@pytest.mark.parametrize("text", ["", "{", "nul", "{'a': 1}", "[1,]", '"\t"', "\ufeff{}", "1 2", "+1", "01"])
def test_text_that_is_no_json_is_told_apart(text: str) -> None:
    with pytest.raises(NotJson):
        parse(text)


@pytest.mark.parametrize("data", [b"\xff", b'"\xc3"', b"\xed\xa0\x80"])
def test_bytes_that_are_no_text_are_no_json(data: bytes) -> None:
    with pytest.raises(NotJson):
        parse(data)


@pytest.mark.parametrize(
    "text",
    ["NaN", "[-Infinity]", '"\\u0000"', '{"\\u0000": 1}', '"\\ud800"', "1e999", "9" * 5000, "[" * 500 + "]" * 500],
)
def test_json_text_that_the_ledger_cannot_keep_is_refused_as_a_value(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse(text)
    assert not isinstance(caught.value, NotJson)


def test_nesting_beyond_the_parsers_own_stack_is_refused_too() -> None:
    with pytest.raises(InvalidValue, match="deep"):
        parse("[" * 200_000)


def test_a_name_said_twice_is_refused_wherever_it_is() -> None:
    with pytest.raises(InvalidValue, match="'a' twice"):
        parse('[{"b": {"a": 1, "a": 1}}]')


def test_a_surrogate_pair_is_one_character() -> None:
    assert parse('"\\ud83d\\udc4b"') == "👋"


def test_a_pointer_says_each_step_as_rfc_6901_does() -> None:
    assert escape("a/b~c~1") == "a~1b~0c~01"
    assert pointer_to(()) == ""
    assert pointer_to(("parameters", 0, "", "m~n")) == "/parameters/0//m~0n"


@given(KEEPABLE)
def test_whatever_passes_survives_its_canonical_text(value: Any) -> None:
    check_value(value)
    assert parse(canonical(value)) == value


@given(st.dictionaries(TEXT, PLAIN, min_size=2), st.randoms())
def test_the_canonical_text_does_not_depend_on_the_order_of_names(value: dict[str, Any], dice: Any) -> None:
    names = list(value)
    dice.shuffle(names)
    assert canonical({name: value[name] for name in names}) == canonical(value)


@given(st.text() | st.binary())
def test_any_text_is_parsed_or_refused_and_nothing_else(text: str | bytes) -> None:
    try:
        value = parse(text)
    except InvalidValue:
        return
    assert json.loads(canonical(value)) == value


@given(
    st.recursive(
        st.floats() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_what_passes_can_be_said_in_utf_8(value: Any) -> None:
    try:
        check_value(value)
    except InvalidValue:
        return
    assert "\\u0000" not in canonical(value).replace("\\\\", "")
    canonical(value).encode()
