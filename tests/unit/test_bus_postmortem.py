"""A dead letter has an id that stays, a reason, and another try in it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import amqp
import pytest

from chiffon.bus.letters import Message, dead_letter_for
from chiffon.bus.postmortem import Coroner, DeadLetter, legible
from tests.bells import bell, dead_letter


def lying(body: bytes = b"body", headers: dict[str, Any] | None = None, **properties: Any) -> Any:
    raw = amqp.Message(body, application_headers=headers or {}, **properties)
    raw.delivery_info = {"exchange": "dlx_exchange", "routing_key": "work_queue", "delivery_tag": 1}
    return raw


def of(message: Message) -> Any:
    return lying(message.body, dict(message.headers), message_id=message.message_id, **message.properties)


def examine(*raw: Any) -> list[DeadLetter]:
    coroner = Coroner()
    return [coroner.examine(one) for one in raw]


def died(queue: str, reason: str, second: int) -> dict[str, Any]:
    return {"queue": queue, "reason": reason, "count": 1, "time": datetime(2026, 5, 4, 3, 2, second)}


def test_queue_reason_and_times_are_the_brokers_account() -> None:
    deaths = [died("work_queue", "rejected", 9), died("elsewhere", "expired", 1)]
    (letter,) = examine(lying(headers={"x-death": deaths}))
    assert (letter.queue, letter.reason) == ("work_queue", "rejected")
    assert letter.died_at == datetime(2026, 5, 4, 3, 2, 9, tzinfo=UTC)
    assert letter.first_death_at == datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def test_a_letter_of_the_ringers_says_its_own_reason() -> None:
    died_at = datetime(2026, 5, 4, tzinfo=UTC)
    (letter,) = examine(of(dead_letter_for(bell(queue="work_queue.gpu"), "crashed 3 times", died_at=died_at).message))
    assert (letter.queue, letter.reason) == ("work_queue.gpu", "crashed 3 times")
    assert (letter.task_id, letter.doorbell) == ("task-0", True)


def test_all_doorbells_of_a_task_have_one_id() -> None:
    first, second, debt, other = examine(
        of(bell().letter().message),
        of(bell(ring_no=2).letter().message),
        of(dead_letter(bell(), "why").message),
        of(bell(1).letter().message),
    )
    assert first.id == second.id == debt.id != other.id


def test_identical_foreign_letters_have_ids_of_their_own_which_stay() -> None:
    letters = [lying(b"a"), lying(b"a"), lying(b"b"), lying(b"a", message_id="m"), lying(b"b", message_id="m")]
    ids = [letter.id for letter in examine(*letters)]
    assert len(set(ids)) == 5
    assert ids == [letter.id for letter in examine(*letters)]


def test_messages_that_differ_in_their_headers_alone_differ() -> None:
    one, other = examine(lying(headers={"task": "a"}), lying(headers={"task": "b"}))
    assert one.id != other.id


def test_what_the_broker_counts_at_each_look_changes_no_id() -> None:
    (before,) = examine(lying(headers={"task": "a"}))
    seen = {"task": "a", "x-delivery-count": 7, "x-acquired-count": 8, "x-death": [died("work_queue", "rejected", 1)]}
    assert examine(lying(headers=seen))[0].id == before.id


@pytest.mark.parametrize(
    "headers",
    [
        {"x-death": "none"},
        {"x-death": [1, {"time": "yesterday", "queue": 3}]},
        {"id": 5, "chiffon_doorbell": 1},
        {"id": None, "chiffon_reason": b"\xff", "chiffon_queue": ["x"], "chiffon_died_at": 4},
        {b"\xff": b"\xff", "chiffon_unreadable": "UnicodeDecodeError"},
    ],
)
def test_headers_that_anybody_may_have_written_are_read_without_harm(headers: dict[str, Any]) -> None:
    (letter,) = examine(lying(headers=headers))
    assert (letter.queue, letter.reason, letter.task_id, letter.doorbell) == (None, None, None, False)


def test_headers_nested_deep_have_an_id() -> None:
    deep: Any = []
    for _ in range(5000):
        deep = [deep]
    assert examine(lying(headers={"deep": deep}))[0].id


def test_another_try_goes_to_the_queue_where_it_died_without_what_would_stop_it() -> None:
    headers = {
        "task": "echo",
        "CC": ["elsewhere"],
        "x-death": [died("work_queue.gpu", "rejected", 1)],
        "x-first-death-queue": "work_queue.gpu",
        "x-delivery-count": 3,
        "chiffon_reason": "why",
    }
    (letter,) = examine(lying(headers=headers, user_id="other", expiration="1", delivery_mode=1, priority=4))
    again = letter.again()
    assert (again.exchange, again.routing_key) == ("work", "work_queue.gpu")
    assert again.message == Message(letter.id, b"body", {"task": "echo"}, {"delivery_mode": 2, "priority": 4})


def test_a_message_id_is_kept_and_a_direct_reply_queue_is_not() -> None:
    (letter,) = examine(lying(message_id="m", reply_to="amq.rabbitmq.reply-to", correlation_id="c"))
    again = letter.again()
    assert (again.routing_key, again.message.message_id) == ("work_queue", "m")
    assert again.message.properties == {"delivery_mode": 2, "correlation_id": "c"}


def test_a_mended_body_is_plain_json() -> None:
    raw = lying(b"\x1f", {"compression": "zlib", "id": "t"}, content_encoding="binary", content_type="x")
    message = examine(raw)[0].again(b"[]").message
    assert (message.body, message.headers) == (b"[]", {"id": "t"})
    assert message.properties["content_type"] == "application/json"
    assert message.properties["content_encoding"] == "utf-8"


def test_every_kind_of_header_can_be_shown_as_json() -> None:
    deep: Any = 1
    for _ in range(1000):
        deep = {"x": deep}
    shown = legible(
        {
            "at": datetime(2026, 5, 4, tzinfo=UTC),
            b"\xff": b"\xff",
            "n": Decimal("1.5"),
            "l": [None, True, 1.5],
            "d": deep,
        }
        | {"nan": float("nan")}
    )
    text = json.dumps(shown, allow_nan=False)
    assert shown["at"] == "2026-05-04T00:00:00+00:00"
    assert shown["\\xff"] == "\\xff"
    assert shown["nan"] == "nan"
    assert '"..."' in text
