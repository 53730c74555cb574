"""The relay passes everything on, until it is told to cut, to fall silent, or to keep an answer to itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Hashable, Iterator

import pytest

from chiffon.ledger import accept, agents, claims, control, rings, settle, sweeps
from tests.chaos.relay import COMMIT, STATEMENTS, Relay, Relays, wait_for
from tests.e2e.waiting import eventually

PATIENCE = 5.0


class Echo:
    """A server that gives back what it is sent, and remembers it."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=[client], daemon=True).start()

    def _echo(self, client: socket.socket) -> None:
        try:
            while data := client.recv(1024):
                self.heard += data
                client.sendall(data)
        except OSError:
            pass
        self.ended.set()


@pytest.fixture
def server() -> Iterator[Echo]:
    """A server."""
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def relay(server: Echo) -> Iterator[Relay]:
    """A relay before it."""
    relays = Relays()
    yield relays.before("127.0.0.1", server.port)
    relays.close()


@pytest.fixture
def client(relay: Relay) -> Iterator[socket.socket]:
    """A connection through the relay, which is there."""
    with socket.create_connection(("127.0.0.1", relay.port), timeout=PATIENCE) as connection:
        connection.sendall(b"hello")
        assert connection.recv(1024) == b"hello"
        yield connection


def hears_nothing(client: socket.socket) -> bool:
    """Whether nothing comes, and the connection does not end either."""
    client.settimeout(0.3)
    try:
        return client.recv(1024) is None
    except TimeoutError:
        return True
    finally:
        client.settimeout(PATIENCE)


def has_ended(client: socket.socket) -> bool:
    """Whether the other side has ended it."""
    try:
        return client.recv(1024) == b""
    except ConnectionError:
        return True


def test_a_cut_connection_ends_and_a_new_one_is_welcome(relay: Relay, client: socket.socket) -> None:
    relay.cut()
    assert has_ended(client)
    with socket.create_connection(("127.0.0.1", relay.port), timeout=PATIENCE) as again:
        again.sendall(b"again")
        assert again.recv(1024) == b"again"


def test_what_is_refused_ends_at_once(relay: Relay, client: socket.socket) -> None:
    relay.refuse(True)
    assert has_ended(client)
    with socket.create_connection(("127.0.0.1", relay.port), timeout=PATIENCE) as again:
        assert has_ended(again)


def test_in_silence_nothing_arrives_and_nobody_is_told(relay: Relay, client: socket.socket, server: Echo) -> None:
    relay.fall_silent(True)
    client.sendall(b"is anybody there?")
    assert hears_nothing(client)
    assert server.heard == b"hello"
    assert not server.ended.is_set()
    relay.fall_silent(False)
    assert has_ended(client)
    assert server.ended.wait(PATIENCE)


def test_of_a_half_open_connection_only_the_server_knows(relay: Relay, client: socket.socket, server: Echo) -> None:
    relay.half_open(1.0)
    assert server.ended.wait(PATIENCE)
    client.sendall(b"is anybody there?")
    assert hears_nothing(client)
    assert has_ended(client)


def test_a_swallowed_answer_is_to_what_has_happened(relay: Relay, client: socket.socket, server: Echo) -> None:
    met = relay.swallow_answer(b"", b"COMMIT")
    client.sendall(b"BEGIN")
    assert client.recv(1024) == b"BEGIN"
    client.sendall(b"COMMIT")
    assert has_ended(client)
    assert wait_for(met, PATIENCE)
    assert server.heard.endswith(b"COMMIT")


def test_only_the_answer_that_was_meant_is_swallowed(relay: Relay, client: socket.socket) -> None:
    met = relay.swallow_answer(b"WITH verdicts AS", b"COMMIT")
    client.sendall(b"COMMIT")
    assert client.recv(1024) == b"COMMIT"
    client.sendall(b"WITH verdicts AS (...)")
    eventually("the answer", lambda: client.recv(1024))
    client.sendall(b"COMMIT")
    assert has_ended(client)
    assert met.done()


IDLE, IN_TRANSACTION = b"Z\x00\x00\x00\x05I", b"Z\x00\x00\x00\x05T"


def answer(rows: int) -> bytes:
    """How Postgres says how many rows a statement has met."""
    return b"C\x00\x00\x00\x0dUPDATE %d\x00" % rows


def ask(client: socket.socket, words: bytes) -> None:
    """Say something, and hear it again."""
    client.sendall(words)
    assert client.recv(1024) == words


def test_a_commit_of_nothing_is_not_the_one_that_was_meant(relay: Relay, client: socket.socket) -> None:
    met = relay.swallow_answer(STATEMENTS["debts"], COMMIT)
    for rows in (0, 0, 1):
        ask(client, STATEMENTS["debts"] + answer(rows) + IN_TRANSACTION)
        assert not met.done()
        if rows:
            client.sendall(COMMIT)
            assert has_ended(client)
        else:
            ask(client, COMMIT)
    assert wait_for(met, PATIENCE)


def test_what_commits_by_itself_is_swallowed_once_it_has_done_something(relay: Relay, client: socket.socket) -> None:
    ask(client, IDLE)
    met = relay.swallow_answer(STATEMENTS["claim"], COMMIT)
    ask(client, b"SELECT 1" + answer(1) + IDLE)
    ask(client, STATEMENTS["settle"] + answer(1) + IDLE)
    ask(client, STATEMENTS["claim"] + answer(0) + IDLE)
    assert not met.done()
    client.sendall(STATEMENTS["claim"] + answer(2) + IDLE)
    assert has_ended(client)
    assert wait_for(met, PATIENCE)


def test_a_statement_of_a_transaction_is_answered_and_its_commit_is_not(relay: Relay, client: socket.socket) -> None:
    met = relay.swallow_answer(b"", COMMIT)
    ask(client, STATEMENTS["claim"] + answer(2) + IN_TRANSACTION)
    client.sendall(COMMIT)
    assert has_ended(client)
    assert wait_for(met, PATIENCE)


@pytest.mark.parametrize("kind", sorted(STATEMENTS.keys() - {"any"}))
def test_each_kind_of_statement_is_known_by_something_that_stands_in_no_other(kind: str) -> None:
    rooms = (accept, agents, claims, control, rings, settle, sweeps)
    texts = {
        getattr(said, "whole", said) for room in rooms for said in vars(room).values() if isinstance(said, Hashable)
    }
    statements = [text for text in texts if isinstance(text, str) and STATEMENTS[kind].decode() in text]
    assert len(statements) == {"accept": 3, "cancel": 2, "claim": 2}.get(kind, 1), statements
