"""Gunicorn's threads stay with a client that goes on asking, and keep nobody out."""

from __future__ import annotations

import http.client
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from chiffon.devstack import ports
from chiffon.devstack.process import Process
from tests.racing import Thread, until

APP = """
import os
import threading

from chiffon.api import serving

serving.STAYS = int(os.environ.get("STAYS", serving.STAYS))

def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "20"), ("Content-Type", "text/plain")])
    return [str(threading.get_ident()).rjust(20).encode()]
"""
THREADS = 4
Ask = Callable[[], int]
"""Asks, and returns the thread that answered."""


@pytest.fixture
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """A gunicorn's, with one worker; its parameter: how long a thread stays, in milliseconds."""
    (tmp_path / "tiny.py").write_text(APP)
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
