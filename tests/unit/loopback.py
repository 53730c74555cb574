"""Real HTTP servers on loopback, and requests to them: what the tests of `http.request` share."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path

from workers.http import Answer, Rules, fetch, prepare

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
RULES = Rules(allow=LOOPBACK, secret=("token", "api_key"))
CERTIFICATE = Path(__file__).with_name("pinned.test.pem")
"""A key, and its certificate for the name `pinned.test`, vouched for by itself until 2126."""


@dataclass(frozen=True)
class Seen:
    """A request as a server saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """A real HTTP server on loopback. ``routes`` maps a path to what writes the answer."""

    address: str
    port: int = 0
    routes: dict[str, Callable[[Handler], None]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str = "/", host: str | None = None) -> str:
        return f"http://{host or self.address}:{self.port}{path}"

    def answers(self, path: str, status: int = 200, body: bytes = b"", **headers: str) -> None:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        self.routes[path] = lambda handler: handler.answer(status, body, fields)

    def redirects(self, path: str, to: str, status: int = 302) -> None:
        self.answers(path, status, Location=to)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    ours: Server

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.ours.seen.append(Seen(self.command, self.path, headers, body))
        self.ours.routes.get(self.path, lambda handler: handler.answer(404, b"no such page", {}))(self)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = serve  # noqa: N815

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def drip(self, start: bytes) -> None:
        """Send the start, and then a letter every now and then until nobody listens."""
        self.close_connection = True
        self.wfile.write(start)
        while not self.ours.stopping.wait(0.02):
            self.wfile.write(b"x")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what many of these tests are about."""


@contextmanager
def serving(address: str = "127.0.0.1", port: int = 0, tls: bool = False) -> Iterator[Server]:
    ours = Server(address)
    listener = Quiet((address, port), type("Bound", (Handler,), {"ours": ours}))
    ours.port = listener.server_address[1]
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        listener.socket = context.wrap_socket(listener.socket, server_side=True)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield ours
    finally:
        ours.stopping.set()
        listener.shutdown()
        thread.join()
        listener.server_close()


def get(url: str, rules: Rules = RULES, timeout: float = 10, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return fetch(prepare("GET", url, fields, None, None), rules, timeout)


def resolver(*answers: Sequence[str]) -> Callable[[str, int], Sequence[str]]:
    """A resolver that gives one answer after another, as a server that rebinds its name does."""
    left = list(answers)
    return lambda host, port: left.pop(0)
