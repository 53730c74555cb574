"""What the API refuses, and how clearly: nothing is running, so what gets through meets a ledger that is away."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api import DocumentedClient, api, problem

ECHO = {"work_type": "echo", "parameters": {"input": "hello"}}


@pytest.fixture(scope="module")
def client() -> DocumentedClient:
    return api(max_body=50_000)


def post(client: DocumentedClient, path: str, text: str | bytes, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, data=text, content_type="application/json", headers=named)


def test_what_is_right_gets_as_far_as_the_ledger(client: DocumentedClient) -> None:
    response = client.post("/dispatch", json=ECHO)
    assert problem(response) == (503, "ledger-unavailable", set())
    assert int(response.headers["Retry-After"]) > 0


@pytest.mark.parametrize("text", ["", "{", "nonsense", '{"work_type": "echo",}', b"\xff\xfe\xfd", "'{}'"])
def test_what_is_no_json_is_400(client: DocumentedClient, text: str | bytes) -> None:
    assert problem(post(client, "/dispatch", text)) == (400, "not-json", set())


@pytest.mark.parametrize("text", ["[]", "7", '"echo"', "null", "true"])
def test_json_that_is_no_object_is_422(client: DocumentedClient, text: str) -> None:
    assert problem(post(client, "/dispatch", text)) == (422, "invalid-input", {""})


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ('"a\\u0000b"', "/parameters/input"),
        ('"\\ud800"', "/parameters/input"),
        ('{"deep": ["\\udfff"]}', "/parameters/input/deep/0"),
        ("NaN", "/parameters/input"),
        ("-Infinity", "/parameters/input"),
        ("1e999", "/parameters/input"),
        ('{"a/b~c": NaN}', "/parameters/input/a~1b~0c"),
    ],
)
def test_values_that_nobody_can_keep_are_422_with_their_place(
    client: DocumentedClient, value: str, pointer: str
) -> None:
    text = f'{{"work_type": "echo", "parameters": {{"input": {value}}}}}'
    assert problem(post(client, "/dispatch", text)) == (422, "invalid-input", {pointer})


def test_absurd_nesting_is_422(client: DocumentedClient) -> None:
    for depth in (150, 20_000):
        text = f'{{"work_type": "echo", "parameters": {{"input": {"[" * depth}{"]" * depth}}}}}'
        assert problem(post(client, "/dispatch", text))[:2] == (422, "invalid-input")


def test_a_name_given_twice_is_422(client: DocumentedClient) -> None:
    response = post(client, "/dispatch", '{"work_type": "echo", "request_id": "a", "request_id": "b"}')
    assert problem(response)[:2] == (422, "invalid-input")
    assert "'request_id' twice" in response.text


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/xml"])
def test_another_content_type_is_415(client: DocumentedClient, content_type: str | None) -> None:
    response = client.post("/dispatch", data=json.dumps(ECHO), content_type=content_type)
    assert problem(response) == (415, "unsupported-media-type", set())
    assert response.headers["Accept"] == "application/json"


def test_a_compressed_body_is_415(client: DocumentedClient) -> None:
    response = post(client, "/dispatch", b"\x1f\x8b", Content_Encoding="gzip")
    assert problem(response) == (415, "unsupported-media-type", set())


def test_a_body_that_says_it_is_as_it_is_is_read(client: DocumentedClient) -> None:
    response = post(client, "/dispatch", b'{"work_type": 1}', Content_Encoding="identity")
    assert problem(response) == (422, "invalid-input", {"/work_type"})


def test_json_by_another_name_is_json(client: DocumentedClient) -> None:
    for content_type in ("application/json; charset=utf-8", "application/vnd.acme+json"):
        assert client.post("/dispatch", data=json.dumps(ECHO), content_type=content_type).status_code == 503


def test_a_large_body_is_413(client: DocumentedClient) -> None:
    assert problem(post(client, "/dispatch", b" " * 50_001)) == (413, "body-too-large", set())
    assert post(client, "/dispatch", b" " * 50_000).status_code == 400


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"priority": 0}, "/priority"),
        ({"priority": 6}, "/priority"),
        ({"priority": True}, "/priority"),
        ({"priority": "3"}, "/priority"),
        ({"priority": 3.5}, "/priority"),
        ({"prioritty": 3}, "/prioritty"),
        ({"work_type": ""}, "/work_type"),
        ({"work_type": 7}, "/work_type"),
        ({"parameters": []}, "/parameters"),
        ({"parameters": "input"}, "/parameters"),
        ({"task_id": "not-a-uuid"}, "/task_id"),
        ({"task_id": "{0190a0e8-7b1c-7cc3-98c4-dc0c0c07398f}"}, "/task_id"),
        ({"request_id": ""}, "/request_id"),
        ({"request_id": "x" * 201}, "/request_id"),
        ({"request_id": "line\nbreak"}, "/request_id"),
        ({"request_id": 7}, "/request_id"),
        ({"trace_id": "xyz"}, "/trace_id"),
        ({"trace_id": "0" * 32}, "/trace_id"),
        ({"timeout_seconds": 0}, "/timeout_seconds"),
        ({"timeout_seconds": -1}, "/timeout_seconds"),
        ({"timeout_seconds": True}, "/timeout_seconds"),
        ({"timeout_seconds": "1"}, "/timeout_seconds"),
        ({"timeout_seconds": 1e300}, "/timeout_seconds"),
        ({"max_retries": -1}, "/max_retries"),
        ({"max_retries": 1.5}, "/max_retries"),
        ({"delay_seconds": -1}, "/delay_seconds"),
        ({"delay_seconds": 1e18}, "/delay_seconds"),
        ({"expires_in_seconds": 0}, "/expires_in_seconds"),
        ({"run_at": "tomorrow"}, "/run_at"),
        ({"run_at": "2030-01-01T12:00:00"}, "/run_at"),
        ({"run_at": 1_900_000_000}, "/run_at"),
        ({"run_at": "9999-12-31T23:59:59-12:00"}, "/run_at"),
        ({"run_at": "0001-01-01T00:00:00+12:00"}, "/run_at"),
        ({"run_at": "2030-01-01T12:00:00Z", "delay_seconds": 1}, ""),
        ({"labels": []}, "/labels"),
        ({"labels": {"team": 7}}, "/labels/team"),
        ({"labels": {"team": "x" * 256}}, "/labels/team"),
        ({"labels": {"a b": "x"}}, "/labels"),
        ({"labels": {f"k{n}": "x" for n in range(33)}}, "/labels"),
        ({"parameters": {}}, "/parameters/input"),
        ({"parameters": {"input": 1, "output": 2}}, "/parameters/output"),
    ],
)
def test_a_field_that_does_not_fit_is_422_with_its_place(
    client: DocumentedClient, change: dict[str, Any], pointer: str
) -> None:
    status, _, places = problem(client.post("/dispatch", json={**ECHO, **change}))
    assert (status, places) == (422, {pointer})


def test_every_fault_is_named_at_once(client: DocumentedClient) -> None:
    response = client.post("/dispatch", json={"priority": 9, "labels": 1, "x": 1})
    assert problem(response) == (422, "invalid-input", {"/priority", "/labels", "/x", "/work_type"})


def test_an_unknown_field_is_answered_with_the_nearest_known(client: DocumentedClient) -> None:
    response = client.post("/dispatch", json={**ECHO, "prioritty": 3})
    assert response.json is not None
    assert response.json["errors"] == [{"pointer": "/prioritty", "detail": "unknown; did you mean 'priority'?"}]


def test_an_unknown_work_type_is_answered_with_the_nearest_known(client: DocumentedClient) -> None:
    response = client.post("/dispatch", json={"work_type": "ecko"})
    assert problem(response) == (422, "unknown-work-type", {"/work_type"})
    assert "did you mean echo" in response.text


def test_parameters_are_held_against_the_type_hints(client: DocumentedClient) -> None:
    response = client.post("/dispatch", json={"work_type": "slow_echo", "parameters": {"input": 1, "seconds": "5"}})
    assert problem(response) == (422, "invalid-parameters", {"/parameters/seconds"})


@pytest.mark.parametrize("key", ['"unfinished', '"a"b"', '""', " ", "x" * 201, '"tab\there"'])
def test_a_malformed_idempotency_key_is_422(client: DocumentedClient, key: str) -> None:
    response = client.post("/dispatch", json=ECHO, headers={"Idempotency-Key": key})
    assert problem(response) == (422, "invalid-input", {"Idempotency-Key"})


def test_two_different_idempotency_keys_are_422(client: DocumentedClient) -> None:
    response = client.post("/dispatch", json={**ECHO, "request_id": "a"}, headers={"Idempotency-Key": '"b"'})
    assert problem(response) == (422, "invalid-input", {"Idempotency-Key"})


def test_the_same_idempotency_key_twice_is_one(client: DocumentedClient) -> None:
    for key in ("a", '"a"'):
        response = client.post("/dispatch", json={**ECHO, "request_id": "a"}, headers={"Idempotency-Key": key})
        assert response.status_code == 503


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=ten", "limit"),
        ("limit=1.0", "limit"),
        ("limit=", "limit"),
        ("limit=1&limit=2", "limit"),
        ("status=finished", "status"),
        ("status=", "status"),
        ("colour=red", "colour"),
        ("cursor=xyz", "cursor"),
        ("cursor=W10", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=WyIyMDMwLTAxLTAxVDAwOjAwOjAwWiIsWyJhIl1d", "cursor"),  # ["2030-01-01T00:00:00Z",["a"]]
        ("trace_id=xyz", "trace_id"),
        ("label=team", "label"),
        ("label=te am:x", "label"),
        ("label=team:%00", "label"),
        ("since=yesterday", "since"),
        ("until=2030-01-01", "until"),
        ("work_type=", "work_type"),
        ("agent_id=%00", "agent_id"),
        ("request_id=%00", "request_id"),
    ],
)
def test_a_filter_that_does_not_fit_is_422_with_its_name(client: DocumentedClient, query: str, parameter: str) -> None:
    assert problem(client.get(f"/tasks?{query}")) == (422, "invalid-input", {parameter})


@pytest.mark.parametrize("cursor", ["", "xyz", "W10", "%00", "é", "A" * 21, "A" * 23, "A" * 1001])
def test_a_cursor_of_no_dead_letter_is_422(client: DocumentedClient, cursor: str) -> None:
    assert problem(client.get(f"/dead-letters?cursor={cursor}")) == (422, "invalid-input", {"cursor"})


def test_a_query_that_no_route_reads_is_422(client: DocumentedClient) -> None:
    assert problem(client.post("/dispatch?priority=5", json=ECHO)) == (422, "invalid-input", {"priority"})


@pytest.mark.parametrize("task_id", ["%00", "a%00b", "%0a", "x" * 256])
def test_an_id_that_no_task_can_have_is_404_before_the_ledger_is_asked(client: DocumentedClient, task_id: str) -> None:
    for step in ("cancel", "replay"):
        assert problem(client.post(f"/tasks/{task_id}/{step}")) == (404, "task-not-found", set())


@pytest.mark.parametrize("path", ["/dead-letters/replay", "/dead-letters/discard"])
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"filter": {}},
        {"all": False},
        {"all": True, "ids": ["a"]},
        {"filter": {"queue": "work_queue"}, "all": True},
        {"dry_run": True},
        {"filter": {"colour": "red"}},
        {"ids": "a"},
        {"ids": [7]},
        {"all": "true"},
    ],
)
def test_an_empty_or_double_choice_of_dead_letters_is_422(
    client: DocumentedClient, path: str, body: dict[str, Any]
) -> None:
    assert problem(client.post(path, json=body))[:2] == (422, "invalid-input")


def test_only_one_dead_letter_can_be_mended(client: DocumentedClient) -> None:
    for choice in ({"all": True}, {"ids": ["a", "b"]}):
        response = client.post("/dead-letters/replay", json={**choice, "body": {}})
        assert problem(response)[:2] == (422, "invalid-input")


@pytest.mark.parametrize("body", [{}, {"tasks": []}, {"tasks": [7] * 1001}, {"tasks": {}}, [ECHO]])
def test_a_batch_has_1_to_1000_tasks(client: DocumentedClient, body: Any) -> None:
    assert problem(client.post("/dispatch/batch", json=body))[:2] == (422, "invalid-input")


def test_a_batch_without_a_valid_task_is_422_and_names_every_fault(client: DocumentedClient) -> None:
    response = client.post("/dispatch/batch", json={"tasks": [7, {"work_type": "ecko"}, {**ECHO, "priority": "3"}]})
    assert problem(response) == (422, "invalid-input", {"/tasks/0", "/tasks/1/work_type", "/tasks/2/priority"})


def test_a_batch_has_no_idempotency_key_of_its_own(client: DocumentedClient) -> None:
    response = client.post("/dispatch/batch", json={"tasks": [ECHO]}, headers={"Idempotency-Key": "a"})
    assert problem(response) == (422, "invalid-input", {"Idempotency-Key"})
