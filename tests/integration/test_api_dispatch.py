"""Dispatching against a real ledger; no agent and no broker are there, unless a test plays one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from tests.api import DocumentedClient, api, problem
from tests.bench import Bench
from tests.hand_agent import HandAgent
from tests.racing import until

ECHO = {"work_type": "echo", "parameters": {"input": "hello"}}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def client(ledger_url: str) -> DocumentedClient:
    return api(database_url=ledger_url)


@pytest.fixture
def agent(ledger_url: str) -> Iterator[HandAgent]:
    with HandAgent(ledger_url) as agent:
        yield agent


def dispatch(client: DocumentedClient, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return client.post("/dispatch", json={**ECHO, **fields}, headers=headers)


def test_accepted_work_is_there_to_be_seen(client: DocumentedClient) -> None:
    task_id = str(uuid4())
    response = dispatch(client, task_id=task_id, request_id="order-7", trace_id=TRACE, priority=5, labels={"team": "a"})
    assert response.status_code == 202
    assert response.headers["Location"] == f"/tasks/{task_id}"
    assert response.json == {
        "task_id": task_id,
        "request_id": "order-7",
        "trace_id": TRACE,
        "work_type": "echo",
        "status": "pending",
        "priority": 5,
        "duplicate": False,
        "result": None,
        "error": None,
    }
    task = client.get(response.headers["Location"]).json
    assert task is not None
    assert {name: task[name] for name in response.json if name != "duplicate"} == {
        name: value for name, value in response.json.items() if name != "duplicate"
    }
    assert task["parameters"] == {"input": "hello"}
    assert task["labels"] == {"team": "a"}
    assert task["created_at"].endswith("Z")


def test_ids_are_made_up_where_they_are_absent(client: DocumentedClient) -> None:
    said = dispatch(client).json
    assert said["task_id"][14] == "7"
    assert len(said["trace_id"]) == 32
    assert len(said["request_id"]) == 36


def test_under_the_prefix_the_location_has_it_too(client: DocumentedClient) -> None:
    response = client.post("/api/v1/dispatch", json=ECHO)
    assert response.headers["Location"].startswith("/api/v1/tasks/")
    assert client.get(response.headers["Location"]).status_code == 200


@pytest.mark.parametrize(
    "value", ["ünïcødé ☃ 🧵", {"a": [1, 2.5, None, True, {"b": "c"}]}, "x" * 200_000, 10**900, "\u2028", ""]
)
def test_parameters_come_back_as_they_were_sent(client: DocumentedClient, value: Any) -> None:
    text = json.dumps({"work_type": "echo", "parameters": {"input": value}}, ensure_ascii=False)
    response = client.post("/dispatch", data=text.encode(), content_type="application/json")
    task = client.get(f"/tasks/{response.json['task_id']}").json  # type: ignore[index]
    assert task is not None
    assert task["parameters"] == {"input": value}


def test_a_duplicate_in_flight_is_the_same_task(client: DocumentedClient) -> None:
    first = dispatch(client, request_id="once")
    second = dispatch(client, request_id="once", priority=5, trace_id=TRACE)
    assert second.status_code == 200
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.json == {**first.json, "duplicate": True}


def test_a_duplicate_of_ended_work_has_its_result(client: DocumentedClient, agent: HandAgent) -> None:
    task_id = dispatch(client, request_id="once").json["task_id"]
    agent.complete(task_id, {"output": "hello"})
    again = dispatch(client, request_id="once")
    assert again.status_code == 200
    assert (again.json["task_id"], again.json["status"]) == (task_id, "completed")
    assert again.json["result"] == {"output": "hello"}


def test_a_duplicate_of_failed_work_has_its_error(client: DocumentedClient, agent: HandAgent) -> None:
    agent.fail(dispatch(client, request_id="once").json["task_id"])
    again = dispatch(client, request_id="once").json
    assert (again["status"], again["error"]["message"]) == ("failed", "it said no")


def test_the_header_is_the_same_key_as_the_field(client: DocumentedClient) -> None:
    first = dispatch(client, request_id="once").json
    for key in ("once", '"once"', ' "once" '):
        assert dispatch(client, headers={"Idempotency-Key": key}).json["task_id"] == first["task_id"]


def test_a_key_has_any_printable_characters(client: DocumentedClient) -> None:
    first = dispatch(client, request_id='schlüssel "7" \\').json
    key = '"schlüssel \\"7\\" \\\\"'.encode().decode("latin-1")
    assert dispatch(client, headers={"Idempotency-Key": key}).json["task_id"] == first["task_id"]


@pytest.mark.parametrize("change", [{"parameters": {"input": "other"}}, {"work_type": "fail", "parameters": {}}])
def test_a_key_of_other_work_is_422(client: DocumentedClient, change: dict[str, Any]) -> None:
    task_id = dispatch(client, request_id="once").json["task_id"]
    response = dispatch(client, request_id="once", **change)
    assert problem(response) == (422, "idempotency-key-reused", set())
    assert task_id in response.json["detail"]


def test_equal_parameters_are_equal_however_they_are_written(client: DocumentedClient) -> None:
    first = dispatch(client, work_type="slow_echo", parameters={"input": 1}, request_id="once").json
    again = dispatch(client, work_type="slow_echo", parameters={"seconds": 5, "input": 1}, request_id="once")
    assert (again.status_code, again.json["task_id"]) == (200, first["task_id"])


def test_a_task_id_that_exists_is_a_duplicate_or_409(client: DocumentedClient) -> None:
    task_id = str(uuid4())
    assert dispatch(client, task_id=task_id).status_code == 202
    again = dispatch(client, task_id=task_id)
    assert (again.status_code, again.json["duplicate"]) == (200, True)
    assert problem(dispatch(client, task_id=task_id, parameters={"input": 2})) == (409, "task-exists", set())


def test_a_task_is_asked_for_by_its_id_as_the_caller_writes_it(client: DocumentedClient) -> None:
    task_id = str(uuid4()).upper()
    assert dispatch(client, task_id=task_id).json["task_id"] == task_id
    for path in (f"/tasks/{task_id}", f"/status/{task_id}"):
        found = client.get(path).json
        assert found is not None
        assert found["task_id"] == task_id
    assert client.post(f"/tasks/{task_id}/cancel").status_code == 200


def test_eight_racers_with_one_key_make_one_task(client: DocumentedClient) -> None:
    starter = threading.Barrier(8)

    def race(_: int) -> tuple[int, str]:
        starter.wait()
        response = dispatch(client.application.test_client(), request_id="once")  # type: ignore[arg-type]
        return response.status_code, response.json["task_id"]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(race, range(8)))
    assert sorted(status for status, _ in found) == [200] * 7 + [202]
    assert len({task_id for _, task_id in found}) == 1


def test_while_a_transaction_holds_a_request_id_its_dispatch_is_refused_soon_and_says_why(
    client: DocumentedClient, bench: Bench
) -> None:
    with bench.transaction() as cursor:
        cursor.execute("INSERT INTO request_keys VALUES ('held', 'nobody', 'f')")
        refused = dispatch(client, request_id="held")
        assert problem(refused) == (503, "busy", set())
        assert refused.headers["Retry-After"] == "2"
        assert "nothing was accepted" in refused.json["detail"]
        cursor.connection.rollback()
    assert dispatch(client, request_id="held").status_code == 202


def test_the_trace_id_is_taken_from_traceparent_where_the_body_has_none(client: DocumentedClient) -> None:
    header = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    assert dispatch(client, headers=header).json["trace_id"] == TRACE
    assert dispatch(client, headers=header, trace_id="a" * 32).json["trace_id"] == "a" * 32
    assert dispatch(client, headers={"traceparent": "nonsense"}).json["trace_id"] != TRACE


def test_a_trace_id_may_be_written_as_a_uuid(client: DocumentedClient) -> None:
    assert dispatch(client, trace_id="4BF92F35-77B3-4DA6-A3CE-929D0E0E4736").json["trace_id"] == TRACE


def test_later_work_is_scheduled(client: DocumentedClient) -> None:
    for later in ({"delay_seconds": 3600}, {"run_at": "2199-01-01T00:00:00+02:00"}):
        said = dispatch(client, **later).json
        task = client.get(f"/tasks/{said['task_id']}").json
        assert task is not None
        assert said["status"] == task["status"] == "scheduled"
    assert task["run_at"] == "2198-12-31T22:00:00.000000Z"


def test_a_time_that_is_past_is_now(client: DocumentedClient) -> None:
    for now in ({"delay_seconds": 0}, {"run_at": "2001-01-01T00:00:00Z"}):
        said = dispatch(client, **now).json
        task = client.get(f"/tasks/{said['task_id']}").json
        assert task is not None
        assert said["status"] == task["status"] == "pending"


def test_limits_and_expiry_are_written_down(client: DocumentedClient, agent: HandAgent) -> None:
    said = dispatch(client, timeout_seconds=1.5, max_retries=4, expires_in_seconds=60).json
    task = client.get(f"/tasks/{said['task_id']}").json
    assert task is not None
    assert task["expires_at"] > task["created_at"]
    claim = agent.claim(said["task_id"])
    assert (claim.timeout, claim.max_retries) == (1.5, 4)


def test_prefer_wait_answers_with_the_end(client: DocumentedClient, agent: HandAgent) -> None:
    task_id = str(uuid4())

    def work() -> None:
        until(lambda: client.application.test_client().get(f"/tasks/{task_id}").status_code == 200)
        agent.complete(task_id, {"output": "hello"})

    worker = threading.Thread(target=work)
    worker.start()
    response = dispatch(client, {"Prefer": "respond-async, wait=30"}, task_id=task_id)
    worker.join()
    assert (response.status_code, response.headers["Preference-Applied"]) == (200, "wait=30")
    assert (response.json["status"], response.json["result"]) == ("completed", {"output": "hello"})
    assert response.json["duplicate"] is False


def test_prefer_wait_answers_202_when_the_time_is_over(client: DocumentedClient) -> None:
    response = dispatch(client, {"Prefer": "wait=0"})
    assert (response.status_code, response.headers["Preference-Applied"]) == (202, "wait=0")
    assert "Location" in response.headers


def test_prefer_wait_on_ended_work_answers_at_once(client: DocumentedClient, agent: HandAgent) -> None:
    agent.complete(dispatch(client, request_id="once").json["task_id"], 1)
    for seconds in ("3600", "0061", "9" * 5000):
        response = dispatch(client, {"Prefer": f'wait="{seconds}"'}, request_id="once")
        assert (response.status_code, response.headers["Preference-Applied"]) == (200, "wait=60")
        assert response.json["result"] == 1


@pytest.mark.parametrize("preference", ["wait", "wait=soon", "wait=-1", "return=minimal", "waits=5", ""])
def test_another_preference_is_passed_over(client: DocumentedClient, preference: str) -> None:
    response = dispatch(client, {"Prefer": preference})
    assert response.status_code == 202
    assert "Preference-Applied" not in response.headers
