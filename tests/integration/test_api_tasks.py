"""Reading, cancelling and replaying tasks; agents and work types. The agent is one that the test plays."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from chiffon.domain.verdicts import DeadLettered, RetryLater, TimedOut, WorkError
from chiffon.ledger.accept import accept
from chiffon.ledger.connect import open_session, session_transaction
from tests.api import ECHO, DocumentedClient, api, dispatch, problem
from tests.builders import new_task
from tests.hand_agent import HandAgent

ERROR = WorkError("ValueError", "no", traceback="Traceback ...")


@pytest.fixture
def client(ledger_url: str) -> DocumentedClient:
    return api(database_url=ledger_url)


@pytest.fixture
def agent(ledger_url: str) -> Iterator[HandAgent]:
    with HandAgent(ledger_url) as agent:
        yield agent


def get(client: DocumentedClient, path: str, **query: Any) -> Any:
    response = client.get(path, query_string=query)
    assert response.status_code == 200, response.text
    return response.json


def listed(client: DocumentedClient, **query: Any) -> list[str]:
    return [task["task_id"] for task in get(client, "/tasks", **query)["items"]]


def test_a_task_shows_its_runs_and_its_result(client: DocumentedClient, agent: HandAgent) -> None:
    task_id = dispatch(client)
    first = agent.claim(task_id)
    assert get(client, f"/tasks/{task_id}")["status"] == "running"
    agent.settle(first, RetryLater(0.0, ERROR))
    waiting = get(client, f"/tasks/{task_id}")
    assert (waiting["status"], waiting["error"]["message"]) == ("retrying", "no")
    agent.complete(task_id, {"output": "hello"})
    task = get(client, f"/tasks/{task_id}")
    assert (task["status"], task["result"], task["attempts"]) == ("completed", {"output": "hello"}, 2)
    assert [(run["execution"], run["outcome"]) for run in task["executions"]] == [(1, "retried"), (2, "completed")]
    assert {run["agent_id"] for run in task["executions"]} == {task["agent_id"]} == {"hand@test"}
    assert task["created_at"] <= task["started_at"] <= task["finished_at"]


def test_status_is_the_same_by_another_name(client: DocumentedClient) -> None:
    task_id = dispatch(client)
    assert get(client, f"/status/{task_id}") == get(client, f"/tasks/{task_id}")


@pytest.mark.parametrize("task_id", ["ä b?#%", "a&b=c;d", ".."])
def test_a_task_of_any_name_is_shown_followed_cancelled_and_replayed(ledger_url: str, task_id: str) -> None:
    """By Celery's clients: over HTTP a new one's is a UUID."""
    client = api(database_url=ledger_url)
    with closing(open_session(ledger_url, "a sender")) as session, session_transaction(session) as cursor:
        accept(cursor, [new_task(task_id=task_id)], lease=5)
    path = f"/tasks/{quote(task_id, safe='')}"
    assert get(client, path)["task_id"] == get(client, path.replace("tasks", "status"))["task_id"] == task_id
    assert client.post(f"{path}/cancel").status_code == 200
    assert "cancelled" in client.get(f"{path}/events").text
    replayed = client.post(f"{path}/replay")
    assert replayed.status_code == 202
    assert get(client, replayed.headers["Location"])["status"] == "pending"


def test_a_task_that_is_not_there_is_404(client: DocumentedClient) -> None:
    for task_id in (str(uuid4()), "a", "ünï", "x" * 256, "%00"):
        for path in (f"/tasks/{task_id}", f"/status/{task_id}", f"/api/v1/tasks/{task_id}"):
            assert problem(client.get(path)) == (404, "task-not-found", set())
        for step in ("cancel", "replay"):
            assert problem(client.post(f"/tasks/{task_id}/{step}")) == (404, "task-not-found", set())


def test_a_list_is_newest_first_without_results_and_runs(client: DocumentedClient, agent: HandAgent) -> None:
    made = [dispatch(client) for _ in range(3)]
    agent.complete(made[0], "x" * 1000)
    assert listed(client) == made[::-1]
    assert not {"result", "executions"} & set(get(client, "/tasks")["items"][0])


def test_pages_show_each_task_once_while_new_ones_arrive(client: DocumentedClient) -> None:
    made = [dispatch(client) for _ in range(7)]
    seen: list[str] = []
    page: dict[str, Any] = {"next_cursor": None}
    while not seen or page["next_cursor"]:
        page = get(client, "/tasks", limit=3, **({"cursor": page["next_cursor"]} if seen else {}))
        seen += [task["task_id"] for task in page["items"]]
        dispatch(client)
    assert seen == made[::-1]


def test_the_last_page_that_is_full_has_no_next(client: DocumentedClient) -> None:
    for _ in range(2):
        dispatch(client)
    assert get(client, "/tasks", limit=2)["next_cursor"] is None
    assert get(client, "/tasks", limit=1)["next_cursor"] is not None


def test_filters_choose(client: DocumentedClient, agent: HandAgent) -> None:
    plain = dispatch(client)
    team = dispatch(client, labels={"team": "a:b", "env": "x"}, request_id="order-7")
    failing = dispatch(client, work_type="fail", parameters={}, trace_id="a" * 32)
    agent.complete(plain, 1)
    assert listed(client, status="completed") == [plain]
    assert listed(client, status="pending") == [failing, team]
    assert listed(client, work_type="fail") == listed(client, trace_id="a" * 32) == [failing]
    assert listed(client, trace_id="AAAAAAAA-aaaa-aaaa-aaaa-aaaaaaaaaaaa") == [failing]
    assert listed(client, request_id="order-7") == listed(client, label="team:a:b") == [team]
    assert listed(client, label="env=x") == [team]
    assert listed(client, label="env:y") == []
    assert listed(client, agent_id="hand@test") == [plain]
    assert listed(client, work_type="echo", status="pending") == [team]


def test_times_choose(client: DocumentedClient) -> None:
    first, second = dispatch(client), dispatch(client)
    moment = get(client, f"/tasks/{second}")["created_at"]
    assert listed(client, since=moment) == [second]
    assert listed(client, until=moment) == [first]
    assert listed(client, since="2001-01-01T00:00:00+14:00", until="2199-01-01T00:00:00Z") == [second, first]


def test_waiting_work_is_cancelled_at_once(client: DocumentedClient) -> None:
    for later in ({}, {"delay_seconds": 60}):
        task_id = dispatch(client, **later)
        for _ in range(2):
            response = client.post(f"/tasks/{task_id}/cancel")
            assert (response.status_code, response.json["status"]) == (200, "cancelled")  # type: ignore[index]


def test_running_work_is_asked_to_stop(client: DocumentedClient, agent: HandAgent) -> None:
    task_id = dispatch(client)
    claim = agent.claim(task_id)
    for _ in range(2):
        response = client.post(f"/tasks/{task_id}/cancel")
        assert (response.status_code, response.json["status"]) == (202, "running")  # type: ignore[index]
        assert response.json["cancel_requested_at"] is not None  # type: ignore[index]
    agent.settle(claim, RetryLater(0.0, ERROR))
    assert client.post(f"/tasks/{task_id}/cancel").status_code == 200


def test_ended_work_cannot_be_cancelled(client: DocumentedClient, agent: HandAgent) -> None:
    task_id = dispatch(client)
    agent.complete(task_id, 1)
    assert problem(client.post(f"/tasks/{task_id}/cancel")) == (409, "wrong-state", set())


@pytest.mark.parametrize("verdict", [TimedOut(ERROR), DeadLettered(ERROR)])
def test_ended_work_is_replayed_under_its_id(client: DocumentedClient, agent: HandAgent, verdict: Any) -> None:
    task_id = dispatch(client, request_id="once")
    agent.settle(agent.claim(task_id), verdict)
    response = client.post(f"/api/v1/tasks/{task_id}/replay")
    assert (response.status_code, response.json["status"]) == (202, "pending")  # type: ignore[index]
    assert response.headers["Location"] == f"/api/v1/tasks/{task_id}"
    assert client.post("/dispatch", json={**ECHO, "request_id": "once"}).status_code == 200
    agent.complete(task_id, 2)
    task = get(client, f"/tasks/{task_id}")
    assert [run["execution"] for run in task["executions"]] == [1, 2]


def test_what_has_not_ended_or_has_completed_is_not_replayed(client: DocumentedClient, agent: HandAgent) -> None:
    task_id = dispatch(client)
    assert problem(client.post(f"/tasks/{task_id}/replay")) == (409, "wrong-state", set())
    agent.complete(task_id, 1)
    assert problem(client.post(f"/tasks/{task_id}/replay")) == (409, "wrong-state", set())


def test_a_body_that_a_route_does_not_read_is_passed_over(client: DocumentedClient) -> None:
    response = client.post(f"/tasks/{dispatch(client)}/cancel", data="anything", content_type="text/plain")
    assert response.status_code == 200


def test_agents_are_listed_with_what_they_do(client: DocumentedClient, agent: HandAgent) -> None:
    assert get(client, "/agents/hand@test")["status"] == "online"
    running = [dispatch(client), dispatch(client)]
    for task_id in running:
        agent.claim(task_id)
    shown = get(client, "/agents")["items"][0]
    assert (shown["agent_id"], shown["incarnation"]) == ("hand@test", agent.incarnation)
    assert (shown["status"], shown["current_task_ids"]) == ("busy", running)
    agent.leave()
    assert get(client, "/agents/hand@test")["status"] == "offline"


def test_an_agent_that_gave_no_sign_of_life_is_offline(ledger_url: str, agent: HandAgent) -> None:
    assert agent.incarnation
    client = api(database_url=ledger_url, offline_after=0.002, heartbeat_seconds=0.001)
    assert get(client, "/agents/hand@test")["status"] == "offline"


def test_an_agent_that_was_never_here_is_404(client: DocumentedClient) -> None:
    for agent_id in ("nobody", "%00"):
        assert problem(client.get(f"/agents/{agent_id}")) == (404, "agent-not-found", set())


def test_work_types_are_listed_with_their_schema(client: DocumentedClient, agent: HandAgent) -> None:
    shown = {item["name"]: item for item in get(client, "/work-types")["items"]}
    assert {"echo", "slow_echo", "fail", "shell.run", "http.request"} <= set(shown)
    echo = shown["echo"]
    assert echo["schema"]["required"] == ["input"]
    assert (echo["timeout_seconds"], echo["max_retries"], echo["queue"]) == (30, 0, "work_queue")
    assert (echo["agents_online"], shown["fail"]["agents_online"]) == (1, 0)
    agent.leave()
    assert {item["agents_online"] for item in get(client, "/work-types")["items"]} == {0}
