"""The API as it is served: by `flask run` and by gunicorn, each a process of its own."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from chiffon.devstack import ports
from chiffon.devstack.process import Process
from tests.api import NOBODY
from tests.hand_agent import HandAgent
from tests.racing import until

ROOT = Path(__file__).parents[2]
ECHO = {"work_type": "echo", "parameters": {"input": "hello"}}
LIMIT = 100_000


@dataclass(frozen=True)
class Server:
    """One that answers."""

    process: Process
    address: str


@pytest.fixture(params=["flask", "gunicorn"])
def served(request: pytest.FixtureRequest, ledger_url: str, tmp_path: Path) -> Iterator[Server]:
    port = ports.free_port()
    address = f"{ports.LOOPBACK}:{port}"
    command = {
        "flask": ["flask", "run", "--port", str(port)],
        "gunicorn": ["gunicorn", "--no-control-socket", "--workers", "1", "--bind", address],
    }
    process = Process(
        request.param,
        [sys.executable, "-m", *command[request.param]],
        log=tmp_path / "log",
        folder=ROOT,
        environment={
            "CHIFFON_DATABASE_URL": ledger_url,
            "CHIFFON_BROKER_URL": f"amqp://{NOBODY}//",
            "CHIFFON_MAX_BODY": str(LIMIT),
            "CHIFFON_STREAMS": "2",
        },
        ready=lambda: requests.get(f"http://{address}/health/live", timeout=5).ok,
    )
    process.start()
    yield Server(process, address)
    process.kill()


@pytest.fixture
def server(served: Server) -> str:
    return served.address


def call(address: str, body: Any) -> tuple[int, dict[str, Any]]:
    """POST /dispatch; an iterable body is sent in chunks."""
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request("POST", "/dispatch", body=body, headers={"Content-Type": "application/json"})
    answer = connection.getresponse()
    said: dict[str, Any] = json.loads(answer.read())
    connection.close()
    return answer.status, said


def test_work_is_taken_in_by_every_server(server: str) -> None:
    status, said = call(server, json.dumps(ECHO))
    assert status == 202
    assert requests.get(f"http://{server}/api/v1/tasks/{said['task_id']}", timeout=20).json()["status"] == "pending"
    assert call(server, iter([json.dumps(ECHO).encode()]))[0] == 202


@pytest.mark.parametrize("sent", [b"zz\r\n", b"5\r\nabc"], ids=["no chunk", "a part of one"])
def test_chunks_that_cannot_be_told_apart_are_400(server: str, sent: bytes) -> None:
    host, _, port = server.partition(":")
    head = f"POST /dispatch HTTP/1.1\r\nHost: {server}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + sent)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.split(b" ", 2)[1] == b"400", answer
    assert b"/problems/not-json" in answer


def test_the_pages_that_come_as_files_can_be_asked_for_one_after_the_other(server: str) -> None:
    with requests.Session() as session:
        for page in ("docs", "docs/docs.js", "docs/docs.css", "openapi.json", "docs/docs.js"):
            assert session.get(f"http://{server}/{page}", timeout=20).status_code == 200, page


def test_a_body_over_the_limit_is_413_however_it_is_sent(server: str) -> None:
    for body in (b" " * (LIMIT + 1), b" " * 5_000_000, iter([b" " * LIMIT, b" "]), iter([b" " * LIMIT] * 20)):
        status, said = call(server, body)
        assert (status, said["type"]) == (413, "/problems/body-too-large")
    assert call(server, json.dumps(ECHO))[0] == 202


def follow(address: str, task_id: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request("GET", f"/tasks/{task_id}/events")
    return connection.getresponse()


def numbers(stream: http.client.HTTPResponse) -> list[int]:
    """Those of the steps to the stream's end. Raises IncompleteRead for a stream that was cut."""
    return [int(line[4:]) for line in stream.read().splitlines() if line.startswith(b"id: ")]


def test_a_task_is_followed_to_its_end_at_every_server(server: str, ledger_url: str) -> None:
    task_id = call(server, json.dumps(ECHO))[1]["task_id"]
    with closing(follow(server, task_id)) as stream, HandAgent(ledger_url) as agent:
        assert [stream.readline() for _ in range(3)] == [b"retry: 1000\n", b"\n", b"id: 1\n"], "before it goes on"
        agent.complete(task_id, "done")
        assert numbers(stream) == [2, 3]


def test_who_follows_keeps_nobody_from_dispatching_and_makes_room_by_leaving(server: str) -> None:
    task_id = call(server, json.dumps(ECHO))[1]["task_id"]
    streams = [follow(server, task_id) for _ in range(2)]
    assert [stream.status for stream in streams] == [200, 200]
    assert [stream.readline() for stream in streams] == [b"retry: 1000\n"] * 2
    assert follow(server, task_id).status == 503
    assert call(server, json.dumps(ECHO))[0] == 202
    for stream in streams:
        stream.close()
    until(lambda: follow(server, task_id).status == 200)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
@pytest.mark.parametrize("served", ["gunicorn"], indirect=True)
def test_a_server_that_is_told_to_stop_or_loses_its_parent_ends_its_streams_and_cuts_none(
    served: Server, sent: signal.Signals
) -> None:
    task_id = call(served.address, json.dumps(ECHO))[1]["task_id"]
    with closing(follow(served.address, task_id)) as stream:
        assert stream.readline() == b"retry: 1000\n"
        served.process.signal(sent)
        assert numbers(stream) == [1]
