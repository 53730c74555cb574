"""Following a task: Server-Sent Events from its history. The agent is one that the test plays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from werkzeug.test import TestResponse

from chiffon.devstack.postgres import PrivatePostgres
from chiffon.domain.verdicts import Completed, DeadLettered, RetryLater, WorkError
from tests.api import DocumentedClient, api, dispatch, problem
from tests.bench import Bench
from tests.hand_agent import HandAgent

LONG_AGO = "2147483647"


@dataclass(frozen=True)
class Event:
    """As a reader of event streams takes it apart (WHATWG HTML, 9.2.6)."""

    name: str
    last_id: str
    data: Any


class Stream:
    """A stream that is open: each event as it comes."""

    def __init__(self, response: TestResponse) -> None:
        assert (response.status_code, response.mimetype) == (200, "text/event-stream")
        self._response = response
        self._chunks = response.iter_encoded()
        self._events = self._read(self._chunks)
        self.last_id = ""

    def _read(self, chunks: Iterator[bytes]) -> Iterator[Event]:
        for chunk in chunks:
            for block in chunk.decode().split("\n\n"):
                fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
                self.last_id = fields.get("id", self.last_id)
                if "data" in fields:
                    yield Event(fields.get("event", "message"), self.last_id, json.loads(fields["data"]))

    def chunk(self) -> bytes:
        return next(self._chunks)

    def next(self) -> Event:
        return next(self._events)

    def rest(self) -> list[Event]:
        return list(self._events)

    def close(self) -> None:
        self._response.close()


@pytest.fixture
def client(ledger_url: str) -> DocumentedClient:
    return api(database_url=ledger_url)


@pytest.fixture
def agent(ledger_url: str) -> Iterator[HandAgent]:
    with HandAgent(ledger_url) as agent:
        yield agent


def follow(client: DocumentedClient, task_id: str, *, after: str | None = None) -> Stream:
    headers = {} if after is None else {"Last-Event-ID": after}
    return Stream(client.get(f"/tasks/{task_id}/events", headers=headers, buffered=False))


def statuses(events: list[Event]) -> list[str]:
    return [event.data["status"] for event in events]


def test_the_steps_come_as_they_are_taken_and_the_stream_ends_with_the_task(
    client: DocumentedClient, agent: HandAgent
) -> None:
    task_id = dispatch(client)
    stream = follow(client, task_id)
    first = stream.next()
    assert first.data.pop("at")
    said = {"number": 1, "status": "pending", "execution": None, "agent_id": None, "detail": "accepted"}
    assert first == Event("message", "1", {"task_id": task_id, **said})
    claim = agent.claim(task_id)
    running = stream.next()
    assert (running.data["status"], running.data["execution"], running.data["agent_id"]) == ("running", 1, "hand@test")
    agent.settle(claim, RetryLater(0.0, WorkError("ValueError", "no")))
    assert stream.next().data["status"] == "retrying"
    agent.complete(task_id, {"output": "hello"})
    rest = stream.rest()
    assert statuses(rest) == ["running", "completed"]
    assert [event.last_id for event in rest] == ["4", "5"]


def test_who_comes_back_is_told_what_was_missed_and_no_more(client: DocumentedClient, agent: HandAgent) -> None:
    task_id = dispatch(client)
    stream = follow(client, task_id)
    stream.next()
    stream.close()
    agent.complete(task_id, {"output": "hello"})
    events = follow(client, task_id, after="1").rest()
    assert [(event.last_id, event.data["status"]) for event in events] == [("2", "running"), ("3", "completed")]


@pytest.mark.parametrize("last", ["3", LONG_AGO])
def test_who_has_seen_the_end_is_told_not_to_come_back(client: DocumentedClient, agent: HandAgent, last: str) -> None:
    task_id = dispatch(client)
    agent.complete(task_id, {"output": "hello"})
    answer = client.get(f"/tasks/{task_id}/events", headers={"Last-Event-ID": last})
    assert (answer.status_code, answer.data) == (204, b"")


def test_a_replay_goes_on_where_the_end_was(client: DocumentedClient, agent: HandAgent) -> None:
    task_id = dispatch(client)
    agent.settle(agent.claim(task_id), DeadLettered(WorkError("UnknownWork", "no longer wanted")))
    assert follow(client, task_id).rest()[-1].data["status"] == "dead_lettered"
    client.post(f"/tasks/{task_id}/replay")
    stream = follow(client, task_id, after="3")
    assert stream.next().data["status"] == "pending"
    agent.complete(task_id, {"output": "hello"})
    assert statuses(stream.rest()) == ["running", "completed"]


def test_what_the_work_says_of_itself_comes_between_the_steps(client: DocumentedClient, agent: HandAgent) -> None:
    task_id = dispatch(client)
    claim = agent.claim(task_id)
    stream = follow(client, task_id, after="1")
    assert stream.next().data["status"] == "running"
    for percent in (50, 75):
        agent.report(claim, {"percent": percent})
        assert stream.next() == Event("progress", "2", {"percent": percent})
    agent.settle(claim, Completed("null"))
    assert statuses(stream.rest()) == ["completed"]


@pytest.mark.parametrize("at_once", [False, True])
def test_what_the_next_run_says_is_told_though_the_one_before_said_the_same(
    client: DocumentedClient, agent: HandAgent, at_once: bool
) -> None:
    task_id = dispatch(client)
    claim = agent.claim(task_id)
    stream = follow(client, task_id, after="2")
    agent.report(claim, {"percent": 50})
    assert stream.next() == Event("progress", "", {"percent": 50})
    agent.settle(claim, RetryLater(0.0, WorkError("ValueError", "no")))
    if not at_once:
        assert stream.next().data["status"] == "retrying"
    claim = agent.claim(task_id)
    if not at_once:
        assert stream.next().data["status"] == "running"
    agent.report(claim, {"percent": 50})
    if at_once:
        assert [stream.next().data["status"] for _ in range(2)] == ["retrying", "running"]
    assert stream.next() == Event("progress", "4", {"percent": 50})
    agent.settle(claim, Completed("null"))
    assert statuses(stream.rest()) == ["completed"]


def test_a_ledger_that_is_away_for_a_moment_ends_no_stream_and_costs_no_step(
    client: DocumentedClient, postgres: PrivatePostgres, ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chiffon.api.routes.events.QUIET", 0.0)
    task_id = dispatch(client)
    stream = follow(client, task_id)
    assert stream.next().data["status"] == "pending"
    postgres.stop()
    assert stream.chunk() == b":\n\n"
    postgres.start()
    with HandAgent(ledger_url) as agent:
        agent.complete(task_id, "done")
    assert statuses(stream.rest()) == ["running", "completed"]


def test_a_stream_ends_with_a_task_that_is_removed(client: DocumentedClient, bench: Bench) -> None:
    task_id = dispatch(client)
    stream = follow(client, task_id)
    stream.next()
    bench.sql("DELETE FROM tasks WHERE task_id = %s RETURNING task_id", task_id)
    assert stream.rest() == []


@pytest.mark.parametrize("last", ["-1", "one", "1.5", "2147483648", "9" * 5000, "²"])
def test_a_last_event_that_is_no_number_of_a_step_is_refused(client: DocumentedClient, last: str) -> None:
    task_id = dispatch(client)
    answer = client.get(f"/tasks/{task_id}/events", headers={"Last-Event-ID": last})
    assert problem(answer) == (422, "invalid-input", {"Last-Event-ID"})


def test_a_task_that_is_not_there_is_not_found(client: DocumentedClient) -> None:
    assert problem(client.get(f"/tasks/{uuid4()}/events"))[:2] == (404, "task-not-found")


def test_more_streams_than_there_may_be_are_refused_until_one_is_closed(ledger_url: str) -> None:
    client = api(database_url=ledger_url, streams=1)
    task_id = dispatch(client)
    stream = follow(client, task_id)
    stream.next()
    answer = client.get(f"/tasks/{task_id}/events")
    assert problem(answer)[:2] == (503, "too-many-streams")
    assert answer.headers["Retry-After"]
    stream.close()
    follow(client, task_id).close()


def test_a_look_at_the_headers_opens_no_stream(ledger_url: str) -> None:
    client = api(database_url=ledger_url, streams=1)
    task_id = dispatch(client)
    for _ in range(3):
        assert client.head(f"/tasks/{task_id}/events").status_code == 200
    follow(client, task_id).close()
