"""Ids have the shapes their standards give them, and a derived id is the same every time."""

from __future__ import annotations

import multiprocessing
import time
import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chiffon.domain import ids

HEX = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def test_a_task_id_is_a_version_7_uuid_of_the_present() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(ids.new_task_id())
    after = time.time_ns() // 1_000_000
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert before <= made.int >> 80 <= after


MADE = pytest.mark.parametrize("make", [ids.new_task_id, ids.new_request_id, ids.new_trace_id])


@MADE
def test_a_later_id_sorts_after_an_earlier_one(make: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [(2**47 + n) * 1_000_000 for n in range(200)]
    clock = iter(moments)
    monkeypatch.setattr(ids.time, "time_ns", lambda: next(clock))
    made = [make() for _ in moments]
    assert made == sorted(made)


@MADE
def test_ids_of_one_millisecond_differ_in_their_last_digits(
    make: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_700_000_000_000_000_000)
    made = [make() for _ in range(1000)]
    assert len({one[-14:] for one in made}) == 1000


def test_a_forked_process_makes_other_ids_than_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_700_000_000_000_000_000)
    ids.new_trace_id()  # more was drawn with it
    forking = multiprocessing.get_context("fork")
    theirs = forking.SimpleQueue()
    child = forking.Process(target=lambda: theirs.put(_many()))
    child.start()
    mine = _many()
    assert not mine & theirs.get()
    child.join(10)
    assert child.exitcode == 0


def _many() -> set[str]:
    return {ids.new_trace_id() for _ in range(1000)}


def test_a_made_up_id_passes_its_own_check() -> None:
    assert ids.is_uuid(ids.new_task_id())
    assert ids.is_task_id(ids.new_task_id())
    assert ids.is_request_id(ids.new_request_id())
    assert ids.trace_id_from(ids.new_trace_id())


def test_a_request_id_is_a_uuid_of_version_7_and_a_trace_id_32_digits() -> None:
    made = [uuid.UUID(ids.new_request_id()) for _ in range(100)]
    assert {(one.version, one.variant) for one in made} == {(7, uuid.RFC_4122)}
    assert {len(ids.new_trace_id()) for _ in range(100)} == {32}


def test_a_derived_id_is_the_same_every_time_and_a_version_5_uuid() -> None:
    assert ids.derived_id("message", "7") == ids.derived_id("message", "7")
    assert ids.derived_id("message", "7") == str(uuid.uuid5(ids.NAMESPACE, "message\x007"))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3))
def test_a_derived_id_is_what_the_rfc_says(parts: list[str]) -> None:
    assert ids.derived_id(*parts) == str(uuid.uuid5(ids.NAMESPACE, "\x00".join(parts)))


def test_derived_ids_tell_kinds_and_borders_apart() -> None:
    made = [("message", "7"), ("trace", "7"), ("message", "8"), ("mess", "age7"), ("message7",), ("message", "", "7")]
    assert len({ids.derived_id(*parts) for parts in made}) == len(made)


@pytest.mark.parametrize(
    "given_text",
    [HEX, HEX.upper(), "4bf92f35-77b3-4da6-a3ce-929d0e0e4736", "4BF92F35-77B3-4DA6-A3CE-929D0E0E4736"],
)
def test_a_trace_id_is_32_hex_digits_or_a_uuid(given_text: str) -> None:
    assert ids.trace_id_from(given_text) == HEX


@pytest.mark.parametrize(
    "given_text",
    [
        "",
        "0" * 32,
        "00000000-0000-0000-0000-000000000000",
        HEX[:-1],
        HEX + "0",
        HEX[:-1] + "g",
        HEX + "\n",
        " " + HEX,
        f"{{{HEX}}}",
        f"urn:uuid:{HEX}",
        "4bf92f3-577b3-4da6-a3ce-929d0e0e4736",
        "4bf92f35-77b3-4da6-a3ce-929d0e0e473-",
        "٤" * 32,
    ],
)
def test_anything_else_is_no_trace_id(given_text: str) -> None:
    assert ids.trace_id_from(given_text) is None


@pytest.mark.parametrize(
    "header",
    [
        f"00-{HEX}-{SPAN}-01",
        f" 00-{HEX}-{SPAN}-00 ",
        f"00-{HEX.upper()}-{SPAN.upper()}-01",
        f"cc-{HEX}-{SPAN}-01-what-the-future-will-be",
    ],
)
def test_a_traceparent_header_holds_a_trace_id(header: str) -> None:
    assert ids.trace_id_from_traceparent(header) == HEX


@pytest.mark.parametrize(
    "header",
    [
        "",
        HEX,
        "a-b-c-d",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{HEX}-{'0' * 16}-01",
        f"00-{HEX}-{SPAN}",
        f"00-{HEX[:-1]}-{SPAN}-01",
        f"0-{HEX}-{SPAN}-01",
        f"ff-{HEX}-{SPAN}-01",
        f"00-{HEX}-{SPAN}-01-version-00-says-no-more",
        f"01-{HEX}-{SPAN}-01.what-the-future-will-be",
    ],
)
def test_a_malformed_traceparent_header_holds_none(header: str) -> None:
    assert ids.trace_id_from_traceparent(header) is None


@pytest.mark.parametrize(
    ("check", "longest"), [(ids.is_request_id, ids.MAX_REQUEST_ID), (ids.is_task_id, ids.MAX_TASK_ID)]
)
def test_ids_have_a_length_and_are_printable(check: object, longest: int) -> None:
    assert callable(check)
    assert [check("x"), check("x" * longest), check("Bestellung Nr. 7/ü")] == [True, True, True]
    unfit = ["", "x" * (longest + 1), "a\x00b", "a\nb", "\ud800", "\u200b", "\x7f"]
    assert not any(check(text) for text in unfit)


@given(st.text())
def test_whatever_the_text_the_checks_answer(text: str) -> None:
    assert ids.is_task_id(text) in {True, False}
    assert ids.is_request_id(text) in {True, False}
    assert ids.is_uuid(text) in {True, False}
    found = ids.trace_id_from(text)
    assert found is None or (len(found) == 32 and int(found, 16) > 0)
    assert ids.trace_id_from_traceparent(text) is None or len(text) >= 55


@given(st.uuids())
def test_every_uuid_is_one_in_its_canonical_form_only(value: uuid.UUID) -> None:
    assert ids.is_uuid(str(value))
    assert ids.is_uuid(str(value).upper())
    assert not ids.is_uuid(value.hex)
    assert not ids.is_uuid(f"{{{value}}}")
