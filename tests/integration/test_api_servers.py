"""The API as it is served: by `flask run` and by gunicorn, each a process of its own."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from chiffon.devstack import ports
from chiffon.devstack.process import Process
from tests.api import NOBODY

ROOT = Path(__file__).parents[2]
ECHO = {"work_type": "echo", "parameters": {"input": "hello"}}
LIMIT = 100_000


@pytest.fixture(params=["flask", "gunicorn"])
def server(request: pytest.FixtureRequest, ledger_url: str, tmp_path: Path) -> Iterator[str]:
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
        },
        ready=lambda: requests.get(f"http://{address}/health/live", timeout=5).ok,
    )
    process.start()
    yield address
    process.kill()


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
