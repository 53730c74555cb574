"""A broker's certificate is held against the name that the broker is called by, whoever connects."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from chiffon.bus.connect import connect
from chiffon.domain.errors import BrokerUnavailable
from tests.claimed import app
from tests.unit.loopback import CERTIFICATE


class Broker:
    """What speaks TLS on loopback, as `pinned.test`, and nothing more. ``asked``: the names that it was called by.

    ``trusted``: those by which somebody was content with its certificate.
    """

    def __init__(self, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self.asked: list[str | None] = []
        self.trusted: list[str | None] = []
        self._listener = listener
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(CERTIFICATE)
        self._context.sni_callback = lambda _, name, __: self.asked.append(name)

    def serve(self) -> None:
        """Shake hands with whoever comes, and hear what they begin with."""
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), self._context.wrap_socket(client, server_side=True) as secure:
                if secure.recv(4) == b"AMQP":
                    self.trusted.append(self.asked[-1])


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker that is found under any name of `.test`, and whose certificate the system trusts."""
    resolve: Callable[..., Any] = socket.getaddrinfo

    def find(host: str, *rest: Any, **options: Any) -> Any:
        return resolve("127.0.0.1" if host.endswith(".test") else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", find)
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Broker(listener)
        threading.Thread(target=found.serve, daemon=True).start()
        yield found
        listener.shutdown(socket.SHUT_RDWR)


def ring(url: str) -> str:
    """Connect as the ringer does; why it failed at last."""
    with pytest.raises(BrokerUnavailable) as failed:
        connect(url, name="test", patience=2)
    return str(failed.value)


def consume(url: str, **options: Any) -> str:
    """Connect as agents, their children and Flower do; why it failed at last."""
    connection = app().connection_for_read(url, connect_timeout=2, **options).clone()  # as their pools do
    with pytest.raises(OperationalError) as failed:
        connection.ensure_connection(max_retries=2, interval_start=0, interval_step=0)
    return str(failed.value)


WAYS = pytest.mark.parametrize("way", [ring, consume])


@WAYS
def test_a_certificate_of_another_name_is_refused(broker: Broker, way: Callable[[str], str]) -> None:
    assert "certificate" in way(f"amqps://other.test:{broker.port}//")
    assert broker.trusted == []


@WAYS
def test_a_certificate_of_its_name_is_taken(broker: Broker, way: Callable[[str], str]) -> None:
    assert "certificate" not in way(f"amqps://pinned.test:{broker.port}//")
    assert set(broker.trusted) == {"pinned.test"}


@WAYS
def test_each_broker_of_a_list_is_asked_for_its_own_name(broker: Broker, way: Callable[[str], str]) -> None:
    way(f"amqps://other.test:{broker.port}//;amqps://pinned.test:{broker.port}//")
    assert broker.asked[:2] == ["other.test", "pinned.test"]
    assert set(broker.trusted) == {"pinned.test"}


@pytest.mark.parametrize(
    ("said", "trusted"),
    [
        ({"ca_certs": str(CERTIFICATE)}, False),
        ({"ca_certs": str(CERTIFICATE), "server_hostname": "pinned.test"}, True),
        ({"cert_reqs": ssl.CERT_NONE}, True),
    ],
)
def test_what_celeryconfig_says_of_tls_counts(broker: Broker, said: dict[str, Any], trusted: bool) -> None:
    consume(f"amqps://other.test:{broker.port}//", ssl=said)
    assert bool(broker.trusted) is trusted


def test_without_tls_there_is_nothing_to_hold_against_a_name(broker: Broker) -> None:
    consume(f"amqp://pinned.test:{broker.port}//")
    assert broker.asked == []
