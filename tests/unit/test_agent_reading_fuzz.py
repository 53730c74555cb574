"""Whatever bytes and headers come: work that the ledger can keep, or malformed, and nothing else."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chiffon.agent.reading import Direct, Doorbell, Reader
from chiffon.bus.letters import DOORBELL
from chiffon.domain.errors import MalformedMessage
from chiffon.domain.values import check_value
from tests.deliveries import Delivery, encoded, enveloped, native
from tests.unit.test_agent_reading import TYPES

READER = Reader(TYPES, {"celery.add": object()}, limit=10_000)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(),
    st.sampled_from([math.nan, math.inf, 1e300]),
    st.text(max_size=20),
    st.characters(categories=["Cs", "Cc"]),
    st.binary(max_size=20),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
    st.sampled_from(["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"]),
    st.decimals(),
)
"""What py-amqp makes of the values of a header table, surrogates included."""

VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, min_size=2, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = [
    *("id", "task", "request_id", "trace_id", "root_id", "parent_id", "group", "timelimit", "eta", "expires"),
    *("compression", "group_index", "ignore_result", "replaced_task_nesting", "shadow", "stamped_headers"),
    *("stamps", "reply_to", "lang", "retries", DOORBELL),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=9,
)
HEADERS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3)
EMBEDDED = st.dictionaries(st.sampled_from(["callbacks", "errbacks", "chain", "chord", "other"]), JSON)
PROPERTIES = st.dictionaries(st.sampled_from(["message_id", "priority", "correlation_id"]), VALUES)


def read(delivery: Delivery) -> None:
    """Read a delivery, and look whether the ledger could keep what it is."""
    with suppress(MalformedMessage):
        found = READER.read(delivery)
        assert isinstance(found, Doorbell | Direct)
        if isinstance(found, Direct):
            moments = {"run_at": None, "expires_at": None}
            check_value(asdict(found.task) | moments)
            for moment in (found.task.run_at, found.task.expires_at):
                assert moment is None or 1970 <= moment.year < 9999


@given(st.builds(Delivery, st.binary(max_size=200), HEADERS, PROPERTIES, SCALARS, SCALARS))
def test_any_bytes_of_any_kind(delivery: Delivery) -> None:
    read(delivery)


@given(st.builds(Delivery, JSON.map(encoded), st.just({}), PROPERTIES))
def test_any_json(delivery: Delivery) -> None:
    read(delivery)


@given(HEADERS, st.dictionaries(st.text(), VALUES, max_size=2))
def test_a_celery_message_with_any_headers(known: dict[str, Any], unknown: dict[str, Any]) -> None:
    plain = native(["a", 1], {}, task="count")
    read(replace(plain, headers=plain.headers | unknown | known))


@pytest.mark.parametrize("name", NAMES)
@given(value=VALUES)
def test_a_celery_message_with_one_header_that_is_anything(name: str, value: Any) -> None:
    read(replace(native(), headers=native().headers | {name: value}))


@given(st.lists(JSON, min_size=2, max_size=4) | st.tuples(st.lists(JSON), st.dictionaries(st.text(), JSON), EMBEDDED))
def test_a_celery_message_with_any_body(body: Any) -> None:
    read(replace(native(task="celery.add"), body=encoded(body)))


@given(
    st.dictionaries(
        st.sampled_from(
            ["protocol_version", "message_id", "trace_id", "request_id", "task_id", "type", "priority", "payload"]
        ),
        JSON,
        max_size=2,
    ),
    PROPERTIES,
)
def test_an_envelope_with_any_members(members: dict[str, Any], properties: dict[str, Any]) -> None:
    read(enveloped(properties=properties, **members))
