"""A doorbell is what Celery itself would have sent, and says whose it is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from celery import Celery

from chiffon.bus.letters import dead_letter_for
from chiffon.bus.sealing import seal
from tests.bells import bell, dead_letter

OWN = {"request_id", "trace_id", "ring_no", "chiffon_doorbell"}


def test_headers_and_body_are_those_of_celerys_protocol_2() -> None:
    ours = bell(parent_id="parent", root_id="root", retries=2, group_id="group").letter().message
    theirs = Celery(set_as_current=False).amqp.as_task_v2(
        "task-0", "echo", kwargs={"input": "echo test"}, root_id="root", parent_id="parent", retries=2, group_id="group"
    )
    said = {name for name, value in theirs.headers.items() if value and value != [None, None]}
    assert said <= set(ours.headers) - OWN <= set(theirs.headers)
    differing = {name for name in said if ours.headers[name] != theirs.headers[name]}
    assert differing <= {"origin", "argsrepr"}  # their `()` is our `[]`
    assert json.loads(ours.body) == json.loads(json.dumps(theirs.body))
    assert ours.properties["correlation_id"] == theirs.properties["correlation_id"]
    assert ours.properties["reply_to"] == theirs.properties["reply_to"]


def test_a_doorbell_is_persistent_json_on_the_queue_of_its_task() -> None:
    letter = bell(queue="work_queue.gpu", priority=5).letter()
    assert (letter.exchange, letter.routing_key) == ("work", "work_queue.gpu")
    properties = letter.message.properties
    assert properties["delivery_mode"] == 2
    assert properties["priority"] == 5
    assert (properties["content_type"], properties["content_encoding"]) == ("application/json", "utf-8")


def test_what_a_canvas_needs_is_carried() -> None:
    embed = {"callbacks": [{"task": "next"}], "chain": [{"task": "last"}]}
    letter = bell(arguments=[1, "zwei"], embed=embed, headers={"group_index": 3, "timelimit": [9, 8]}).letter()
    arguments, parameters, carried = json.loads(letter.message.body)
    assert (arguments, parameters) == ([1, "zwei"], {"input": "echo test"})
    assert carried == {"errbacks": None, "chord": None, **embed}
    assert letter.message.headers["group_index"] == 3
    assert letter.message.headers["timelimit"] == [9, 8]


def test_no_further_header_can_make_it_another_tasks_doorbell() -> None:
    forged = {
        "id": "other",
        "task": "shell.run",
        "ring_no": 9,
        "request_id": "x",
        "trace_id": "y",
        "chiffon_doorbell": 0,
    }
    headers = bell(headers=forged).letter().message.headers
    assert headers == bell().letter().message.headers


def test_every_ring_has_a_message_id_of_its_own_and_keeps_it() -> None:
    assert len({bell(n, ring_no=r).message_id for n in range(3) for r in range(3)}) == 9
    assert bell().letter().message.message_id == bell().letter().message.message_id


def test_parameters_named_as_secret_are_hidden_wherever_they_are_only_shown() -> None:
    secret = {"user": "u", "api_token": "hunter2", "nested": {"Password": "hunter2"}}
    message = bell(parameters=secret, arguments=[{"password": "hunter2"}]).letter(("password", "token")).message
    assert b"hunter2" in message.body
    assert "hunter2" not in message.headers["kwargsrepr"] + message.headers["argsrepr"]
    assert "'user': 'u'" in message.headers["kwargsrepr"]


def test_what_is_shown_of_large_parameters_is_short() -> None:
    large = {f"n{number}": "x" * 10_000 for number in range(1000)}
    assert len(bell(parameters=large).letter().message.headers["kwargsrepr"]) <= 1024


@pytest.mark.parametrize("part", ["arguments", "parameters", "embed"])
def test_what_a_large_task_says_is_left_to_its_row(part: str) -> None:
    large = {"arguments": ["x" * 40_000] * 2, "parameters": {"input": "ü" * 40_000}, "embed": {"chain": ["x" * 70_000]}}
    for letter in (bell(**{part: large[part]}).letter(), dead_letter(bell(**{part: large[part]}), "x")):
        arguments, parameters, embed = json.loads(letter.message.body)
        assert (arguments, parameters) == ([], {})
        assert embed == {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        assert letter.message.headers["id"] == "task-0"


def test_what_is_not_so_large_is_said() -> None:
    parameters = {"input": "x" * 65_000}
    assert json.loads(bell(parameters=parameters).letter().message.body)[1] == parameters


def test_a_task_id_too_long_for_a_property_is_left_to_the_headers() -> None:
    message = bell(task_id="ü" * 255).letter().message
    assert "correlation_id" not in message.properties
    assert message.headers["id"] == "ü" * 255


def test_a_dead_letter_is_the_doorbell_with_its_reason_on_the_dead_letter_exchange() -> None:
    died_at = datetime(2026, 5, 4, 3, 2, 1, tzinfo=timezone(timedelta(hours=2)))
    letter = dead_letter_for(bell(queue="work_queue.gpu"), "crashed 3 times", died_at=died_at)
    assert letter.exchange == "dlx_exchange"
    assert letter.message.body == bell().letter().message.body
    assert letter.message.headers["chiffon_reason"] == "crashed 3 times"
    assert letter.message.headers["chiffon_queue"] == "work_queue.gpu"
    assert letter.message.headers["chiffon_died_at"] == datetime(2026, 5, 4, 1, 2, 1, tzinfo=UTC)


def test_a_reason_of_any_length_fits_the_letters_headers() -> None:
    letter = dead_letter(bell(), "ü" * 200_000)
    assert letter.message.headers["chiffon_reason"] == "ü" * 1024
    assert seal(letter, channel=1, frame_max=131_072)


def test_a_debt_paid_twice_can_be_known_by_its_message_id() -> None:
    assert dead_letter(bell(), "x").message.message_id == dead_letter(bell(), "x").message.message_id
    assert dead_letter(bell(), "x").message.message_id != bell().message_id
