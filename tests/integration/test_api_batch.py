"""Batches: one commit, and an answer for each task."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api import DocumentedClient, api, problem

ECHO = {"work_type": "echo", "parameters": {"input": "hello"}}


@pytest.fixture
def client(ledger_url: str) -> DocumentedClient:
    return api(database_url=ledger_url)


def batch(client: DocumentedClient, *tasks: Any) -> list[dict[str, Any]]:
    response = client.post("/dispatch/batch", json={"tasks": tasks})
    assert response.status_code == 202, response.text
    assert response.json is not None
    items: list[dict[str, Any]] = response.json["items"]
    assert len(items) == len(tasks)
    return items


def test_each_task_has_its_answer_in_the_order_sent(client: DocumentedClient) -> None:
    client.post("/dispatch", json={**ECHO, "request_id": "before"})
    items = batch(
        client,
        {**ECHO, "request_id": "first"},
        7,
        {**ECHO, "request_id": "before"},
        {"work_type": "ecko"},
        {**ECHO, "request_id": "before", "parameters": {"input": 2}},
        {**ECHO, "priority": True},
        {**ECHO, "request_id": "last", "priority": 5},
    )
    assert [item["code"] for item in items] == [202, 422, 200, 422, 422, 422, 202]
    assert [item["request_id"] for item in items if "request_id" in item] == ["first", "before", "last"]
    assert items[2]["duplicate"] is True
    assert items[3]["problem"]["type"] == "/problems/unknown-work-type"
    assert items[4]["problem"]["type"] == "/problems/idempotency-key-reused"
    assert items[5]["problem"]["errors"][0]["pointer"] == "/tasks/5/priority"


def test_twins_are_found(client: DocumentedClient) -> None:
    first, same, other = batch(
        client,
        {**ECHO, "request_id": "once"},
        {**ECHO, "request_id": "once"},
        {**ECHO, "request_id": "once", "parameters": {"input": 2}},
    )
    assert (first["code"], same["code"], other["code"]) == (202, 200, 422)
    assert same["task_id"] == first["task_id"]
    assert other["problem"]["type"] == "/problems/idempotency-key-reused"


def test_a_task_id_twice_with_another_payload_is_409(client: DocumentedClient) -> None:
    task_id = "0190a0e8-7b1c-7cc3-98c4-dc0c0c07398f"
    items = batch(client, {**ECHO, "task_id": task_id}, {"work_type": "fail", "task_id": task_id})
    assert [item["code"] for item in items] == [202, 409]


def test_a_refused_task_takes_none_along_that_has_its_request_id(client: DocumentedClient) -> None:
    (before,) = batch(client, ECHO)
    refused, taken = batch(
        client,
        {"work_type": "fail", "task_id": before["task_id"], "request_id": "once"},
        {**ECHO, "request_id": "once"},
    )
    assert (refused["code"], taken["code"]) == (409, 202)


def test_a_thousand_tasks_are_one_batch(client: DocumentedClient) -> None:
    items = batch(client, *[{**ECHO, "priority": 1 + n % 5} for n in range(1000)])
    assert {item["code"] for item in items} == {202}
    assert len({item["task_id"] for item in items}) == 1000


def test_later_work_in_a_batch_is_scheduled(client: DocumentedClient) -> None:
    now, later = batch(client, ECHO, {**ECHO, "delay_seconds": 60})
    assert (now["status"], later["status"]) == ("pending", "scheduled")


def test_a_batch_of_refused_tasks_alone_is_422(client: DocumentedClient) -> None:
    batch(client, {**ECHO, "request_id": "once"})
    tasks = [{"work_type": "fail", "request_id": "once"}, {"work_type": "ecko"}]
    response = client.post("/dispatch/batch", json={"tasks": tasks})
    assert problem(response) == (422, "invalid-input", {"/tasks/0", "/tasks/1/work_type"})
    assert response.json is not None
    assert [item["code"] for item in response.json["items"]] == [422, 422]


def test_the_trace_id_of_the_request_is_everybodys(client: DocumentedClient) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    response = client.post(
        "/dispatch/batch",
        json={"tasks": [ECHO, {**ECHO, "trace_id": "a" * 32}]},
        headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"},
    )
    assert response.json is not None
    assert [item["trace_id"] for item in response.json["items"]] == [trace_id, "a" * 32]
