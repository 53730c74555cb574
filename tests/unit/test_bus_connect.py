"""A broker that cannot be reached is named, with what to do, in bounded time, and without its password."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from chiffon.bus.connect import connect
from chiffon.domain.errors import BrokerUnavailable


@pytest.fixture
def listen() -> Iterator[Callable[[bytes | None], int]]:
    """Make a listener that says these bytes to whoever comes, or nothing; returns its port."""
    with socket.socket() as listener:

        def answer(said: bytes) -> None:
            client, _ = listener.accept()
            with client:
                client.recv(100)
                client.sendall(said)

        def start(said: bytes | None) -> int:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            if said is not None:
                threading.Thread(target=answer, args=(said,), daemon=True).start()
            return int(listener.getsockname()[1])

        yield start


@pytest.fixture
def nobody() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_broker_that_is_not_there_is_named_without_its_password(nobody: int) -> None:
    with pytest.raises(BrokerUnavailable) as caught:
        connect(f"amqp://user:hunter2@127.0.0.1:{nobody}//", name="test")
    assert f"127.0.0.1:{nobody}" in str(caught.value)
    assert "start it, or check CHIFFON_BROKER_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_each_broker_of_a_list_is_tried_and_named(nobody: int) -> None:
    with pytest.raises(BrokerUnavailable, match=rf"localhost:{nobody}.*does-not-exist\.invalid.*host name is unknown"):
        connect(f"amqp://localhost:{nobody}//; amqp://does-not-exist.invalid//", name="test")


def test_one_that_accepts_and_then_says_nothing_is_left_in_time(listen: Callable[[bytes | None], int]) -> None:
    port, began = listen(None), time.monotonic()
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        connect(f"amqp://127.0.0.1:{port}//", name="test", patience=0.2)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x00\x09\x01", b"", b"\x01\x00\x00"])
def test_one_that_speaks_another_language_is_unavailable(listen: Callable[[bytes | None], int], said: bytes) -> None:
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        connect(f"amqp://127.0.0.1:{listen(said)}//", name="test", patience=0.5)


def test_one_without_tls_is_not_spoken_to_in_the_clear(listen: Callable[[bytes | None], int]) -> None:
    with pytest.raises(BrokerUnavailable):
        connect(f"amqps://user:hunter2@127.0.0.1:{listen(b'AMQP')}//", name="test", patience=0.5)
