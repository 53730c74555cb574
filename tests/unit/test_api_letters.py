"""A dead letter as JSON, whatever its sender wrote."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from chiffon.api.routes.dead_letters import _presentable


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        ("ünï", "ünï"),
        ("\ud800", "?"),
        (b"\xff", "\ufffd"),
        (bytearray(b"a"), "a"),
        (Decimal("1.50"), "1.50"),
        (datetime(2030, 1, 2, 3, 4, 5), "2030-01-02T03:04:05Z"),
        ({"\udfff": [b"a", ({"b": None},)]}, {"?": ["a", [{"b": None}]]}),
        ({7: object}, {"7": "<class 'object'>"}),
    ],
)
def test_every_value_has_a_form_in_json(value: Any, shown: Any) -> None:
    assert _presentable(value) == shown
