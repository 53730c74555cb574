"""Parameters named as secret are hidden, wherever they are, and nothing else is."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chiffon.config import Settings
from chiffon.domain.redaction import HIDDEN, redact

SECRET = Settings().secret_parameters


def test_a_member_named_as_secret_is_hidden_whatever_it_holds() -> None:
    given_value = {"password": "x", "token": ["y"], "secret": {"z": 1}, "api_key": None, "user": "me"}
    hidden = dict.fromkeys(("password", "token", "secret", "api_key"), HIDDEN)
    assert redact(given_value, SECRET) == hidden | {"user": "me"}


def test_a_part_of_the_name_is_enough_in_any_case() -> None:
    assert redact({"dbPassword": 1, "X-Authorization": 2, "REFRESH_TOKEN": 3}, SECRET) == {
        "dbPassword": HIDDEN,
        "X-Authorization": HIDDEN,
        "REFRESH_TOKEN": HIDDEN,
    }


def test_lists_and_objects_are_searched() -> None:
    assert redact([{"a": [{"passwd": 1}]}, ({"token": 2},)], SECRET) == [
        {"a": [{"passwd": HIDDEN}]},
        [{"token": HIDDEN}],
    ]


def test_the_value_itself_is_left_as_it_was() -> None:
    given_value = {"a": {"token": "x"}}
    redact(given_value, SECRET)
    assert given_value == {"a": {"token": "x"}}


def test_names_of_ones_own_are_secret_too() -> None:
    assert redact({"pin": 1, "password": 2}, ("PIN",)) == {"pin": HIDDEN, "password": 2}


def test_names_that_are_no_text_do_not_matter() -> None:
    assert redact({1: {"token": 2}, None: 3}, SECRET) == {1: {"token": HIDDEN}, None: 3}


@given(
    st.recursive(
        st.integers() | st.just("hunter2"),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["token", "x", "my_secret"]), inner),
    )
)
def test_no_secret_is_left_and_no_name_is_lost(value: Any) -> None:
    def walk(before: Any, after: Any) -> None:
        if isinstance(before, dict):
            assert before.keys() == after.keys()
            for name in before:
                if name in {"token", "my_secret"}:
                    assert after[name] == HIDDEN
                else:
                    walk(before[name], after[name])
        elif isinstance(before, list):
            for one, other in zip(before, after, strict=True):
                walk(one, other)
        else:
            assert before == after

    walk(value, redact(value, SECRET))
