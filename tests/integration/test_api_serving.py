"""Gunicorn's threads stay with a client that goes on asking, keep nobody out, and lose nothing of what is said."""

from __future__ import annotations

import http.client
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from gunicorn.config import Config
from gunicorn.workers.gthread import TConn

from chiffon.api.serving import StayingWorker
from chiffon.devstack import ports
from chiffon.devstack.process import Process
from tests.racing import Thread, until

APP = """
import os
import threading

from chiffon.api import serving

serving.STAYS = int(os.environ.get("STAYS", serving.STAYS))

def app(environ, start_response):
    match environ["PATH_INFO"]:
        case "/file":
            start_response("200 OK", [("Content-Length", "7")])
            return environ["wsgi.file_wrapper"](open("file", "rb"))
        case "/none":
            start_response("204 No Content", [])
            return []
        case "/read":
            said = environ["wsgi.input"].read()
        case "/begin":
            said = environ["wsgi.input"].read(1)
        case _:
            said = str(threading.get_ident()).rjust(20).encode()
    start_response("200 OK", [("Content-Length", str(len(said))), ("Content-Type", "text/plain")])
    return [said]
"""
THREADS = 4
Ask = Callable[[], int]
"""Asks, and returns the thread that answered."""


@pytest.fixture
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """A gunicorn's, with one worker; its parameter: how long a thread stays, in milliseconds."""
    (tmp_path / "tiny.py").write_text(APP)
    (tmp_path / "file").write_text("written")
    number = ports.free_port()
    command = ["gunicorn", "--bind", f"127.0.0.1:{number}", "--workers", "1", "--threads", str(THREADS)]
    command += ["--worker-class", "chiffon.api.serving.StayingWorker", "--no-control-socket", "tiny:app"]
    environment = {"STAYS": str(request.param)} if hasattr(request, "param") else {}
    process = Process(
        "api", [sys.executable, "-m", *command], log=tmp_path / "log", folder=tmp_path, environment=environment
    )
    process.launch()
    try:
        until(lambda: answers(number))
        yield number
    finally:
        process.kill()


def answers(port: int) -> bool:
    try:
        with client(port) as ask:
            return ask() > 0
    except OSError:
        return False


@contextmanager
def client(port: int) -> Iterator[Ask]:
    """A connection that stays open."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:

        def ask() -> int:
            connection.request("GET", "/")
            return int(connection.getresponse().read())

        yield ask


def test_the_answer_of_who_stays_comes_in_one_piece_with_its_head(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        pieces = []
        for _ in range(50):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            pieces.append(pieces_of_an_answer(connection))
    # A thread that was let go, since the client was slow for once, sends them by themselves again.
    assert pieces.count(1) > len(pieces) // 2


def pieces_of_an_answer(connection: socket.socket) -> int:
    """In how many pieces an answer comes."""
    answer, pieces = b"", 0
    while len(answer.partition(b"\r\n\r\n")[2]) < 20:
        answer, pieces = answer + connection.recv(4096), pieces + 1
    return pieces


def test_of_each_request_on_a_connection_the_whole_is_heard_and_answered(port: int) -> None:
    """Whether or not there is a body, whether or not it is read, and whether or not the answer has one."""
    asked = [
        ("POST", "/read", b"x" * 5_000),
        ("POST", "/begin", b"y" * 5_000),
        ("POST", "/read", b""),
        ("HEAD", "/", b""),
        ("GET", "/file", b""),
        ("HEAD", "/file", b""),
        ("POST", "/none", b"z" * 5_000),
        ("POST", "/read", iter([b"chunk", b"ed"])),
        ("POST", "/begin", iter([b"left", b"over"])),
        ("POST", "/read", b"last"),
    ]
    answers = []
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        for method, path, body in asked:
            connection.request(method, path, body)
            answers.append(connection.getresponse().read())
            connection.auto_open = 0  # type: ignore[assignment]  # it stays the same connection
    assert answers == [b"x" * 5_000, b"y", b"", b"", b"written", b"", b"", b"chunked", b"l", b"last"]


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
def test_a_client_whose_host_is_gone_is_given_up_before_long() -> None:
    worker = StayingWorker.__new__(StayingWorker)
    worker.cfg, worker.log = Config(), logging.getLogger(__name__)
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
        tcp, address = server.accept()
    unix, end = socket.socketpair()
    end.close()
    with tcp, unix:
        for accepted in (tcp, unix):
            worker.handle(TConn(worker.cfg, accepted, address, address))
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000


def test_a_client_that_goes_on_asking_keeps_its_thread(port: int) -> None:
    with client(port) as one, client(port) as other:
        turns = [(one(), other()) for _ in range(50)]
    # A thread that was let go comes back behind the others: each turn would have another.
    changes = sum(before != after for before, after in pairwise(turns))
    assert changes < len(turns) // 2


def test_clients_that_are_silent_hold_no_thread(port: int) -> None:
    connections = [client(port) for _ in range(THREADS)]
    asks = [connection.__enter__() for connection in connections]
    try:
        for ask in asks:
            ask()
            ask()  # this one may find its thread waiting
        with client(port) as late:
            assert late() > 0
        assert all(ask() > 0 for ask in asks)
    finally:
        for connection in connections:
            connection.__exit__(None, None, None)


@pytest.mark.parametrize("port", [60_000], indirect=True, ids=["stays for a minute"])
def test_who_goes_on_asking_keeps_nobody_out(port: int) -> None:
    done = threading.Event()
    served: set[int] = set()

    def insist(number: int) -> None:
        with client(port) as ask:
            while not done.is_set():
                ask()
                served.add(number)

    threads = [Thread(lambda number=number: insist(number)) for number in range(3 * THREADS)]
    try:
        until(lambda: len(served) == len(threads))
    finally:
        done.set()
    for thread in threads:
        thread.answer()
