"""Connecting to RabbitMQ: every wait ends, and what fails says what to do."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import time
from types import TracebackType
from typing import Any, Self

import amqp
from amqp.sasl import PLAIN
from kombu.transport import pyamqp
from kombu.utils.url import parse_url, sanitize_url

from chiffon.bus.frames import frame_handler
from chiffon.domain.errors import BrokerUnavailable

Version = tuple[int, int]
"""A broker's version: major and minor."""

HEARTBEAT = 30
"""Seconds. The broker closes a connection that was silent for two of them."""

_INSTANT = 0.001  # 0 would make the socket non-blocking, and py-amqp then spins on half a frame
_FAILURES = (OSError, amqp.AMQPError, ValueError, struct.error)


class Connection(pyamqp.Connection):
    """An AMQP connection on which no call waits for ever. ``patience``: seconds, > 0, for each answer of the broker.

    ``place``: of its broker in the list that it was opened from, 0 for the first.
    Not thread-safe, and of no use in a forked child. As a context manager it is open already, and closes.
    """

    def __init__(self, *, patience: float, **options: Any) -> None:
        super().__init__(
            **options,
            connect_timeout=patience,
            write_timeout=patience,
            frame_handler=frame_handler,
            on_blocked=self._note_blocked,
            on_unblocked=self._note_unblocked,
        )
        self.patience = patience
        self.place = 0
        self.blocked = False

    def drain_events(self, timeout: float | None = None) -> None:
        """Handle one event. Raises TimeoutError after ``timeout`` seconds (default: ``patience``).

        py-amqp's own starts its timeout again at each heartbeat, so that it waits for ever on a broker under an alarm.
        """
        deadline = time.monotonic() + (self.patience if timeout is None else timeout)
        while not self.blocking_read(max(_INSTANT, deadline - time.monotonic())):
            if time.monotonic() > deadline:
                raise TimeoutError("RabbitMQ sends heartbeats, and no answer")

    def tend(self) -> None:
        """Handle what has arrived and send a heartbeat when one is due. Raises OSError or AMQPError when it is dead."""
        try:
            while True:
                self.blocking_read(_INSTANT)
        except TimeoutError:
            self.heartbeat_tick()

    def close(self, *arguments: Any, **options: Any) -> None:
        """Say goodbye and close; one that cannot be told (a dead, hanging or blocking broker) is dropped."""
        if self.blocked:  # it reads nothing from us, a goodbye neither
            self.drop()
            return
        try:
            super().close(*arguments, **options)
        except _FAILURES:
            self.drop()

    def drop(self) -> None:
        """Close the socket at once, without AMQP's goodbye, which waits for the broker."""
        transport = self._transport
        if transport is not None and transport.sock is not None:
            transport.sock.settimeout(0)  # TLS has a goodbye of its own, which would wait too
        self.collect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _note_blocked(self, reason: str) -> None:
        self.blocked = True

    def _note_unblocked(self) -> None:
        self.blocked = False


def connect(broker_url: str, *, name: str, patience: float = 10.0, heartbeat: int = HEARTBEAT) -> Connection:
    """Open a connection to the first broker of ``broker_url`` (a ``;`` list) that answers.

    Args:
        broker_url: ``amqp://user:password@host:5672/vhost``; ``amqps://`` checks the certificate and the host name.
        name: what the broker's own tools show for this connection.
        patience: seconds, > 0, that each of the broker's answers may take.
        heartbeat: seconds between proofs of life; whoever holds the connection calls `Connection.tend` more often.

    Raises:
        BrokerUnavailable: none of them answers; says why for each, and what to do. Passwords are hidden.
    """
    failures = []
    for place, url in enumerate(brokers_of(broker_url)):
        connection = None
        try:
            connection = _connection(url, name, patience, heartbeat)
            connection.connect()
        except _FAILURES as error:
            if connection is not None:
                connection.drop()
            failures.append(f"{_shown(url)}: {advice(error)}")
        else:
            connection.place = place
            return connection
    raise BrokerUnavailable("; ".join(failures))


def brokers_of(broker_url: str) -> list[str]:
    """The URLs of a ``;`` list, in its order."""
    return [url.strip() for url in broker_url.split(";")]


def advice(error: Exception) -> str:
    """What keeps a broker from being reached, and what to do about it."""
    if isinstance(error, amqp.AccessRefused):
        return "RabbitMQ refuses the login; check user and password in CHIFFON_BROKER_URL"
    if isinstance(error, amqp.NotAllowed):
        return (
            f"RabbitMQ refuses the virtual host ({error.reply_text}); check the path of CHIFFON_BROKER_URL,"
            " and the user's permissions"
        )
    if isinstance(error, socket.gaierror):
        return "the host name is unknown; check CHIFFON_BROKER_URL"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); name its authority's file in SSL_CERT_FILE"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"RabbitMQ does not answer ({reason}); start it, or check CHIFFON_BROKER_URL"


def version_of(connection: Any) -> Version:
    """The version that RabbitMQ named in the handshake; (0, 0) for a product that promises none of its features."""
    properties = connection.server_properties
    found = re.match(r"(\d+)\.(\d+)", str(properties.get("version", "")))
    if properties.get("product") != "RabbitMQ" or found is None:
        return (0, 0)
    return int(found[1]), int(found[2])


def _connection(url: str, name: str, patience: float, heartbeat: int) -> Connection:
    parts = parse_url(url)
    host = parts["hostname"] or "127.0.0.1"
    secure = parts["transport"] == "amqps"
    port = parts["port"] or (5671 if secure else 5672)
    return Connection(
        patience=patience,
        host=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        authentication=PLAIN(parts["userid"] or "guest", parts["password"] or "guest"),
        virtual_host=parts["virtual_host"] or "/",
        ssl={"server_hostname": host} if secure else False,  # without a name, any valid certificate would do
        heartbeat=heartbeat,
        client_properties={"connection_name": name},
    )


def _shown(url: str) -> str:
    try:
        return str(sanitize_url(url))
    except ValueError:
        return "CHIFFON_BROKER_URL"
