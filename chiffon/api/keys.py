"""Who may call: whoever has a key; and where no keys are set, whoever is on this machine."""

from __future__ import annotations

import hmac
import socket
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

from flask import Flask, request

from chiffon.api import kinds
from chiffon.api.contract import Operation
from chiffon.api.problems import ApiProblem

_PAGES = frozenset({"openapi.spec", "pages.docs", "pages.asset", "pages.problem", "pages.problems"})
"""What tells only what the public source tells, and needs no key."""


def install(app: Flask, keys: tuple[str, ...]) -> None:
    """Let only those call ``app`` who may."""
    digests = tuple(sha256(key.encode()).digest() for key in keys)
    app.before_request((lambda: _demand_key(app, digests)) if digests else _demand_loopback)


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an address) is this machine and nobody else's."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _demand_key(app: Flask, digests: tuple[bytes, ...]) -> None:
    if request.endpoint in _PAGES or _is_open(app):
        return
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise ApiProblem(
            kinds.UNAUTHORIZED, kinds.UNAUTHORIZED.advice, headers={"WWW-Authenticate": 'Bearer realm="chiffon"'}
        )
    digest = sha256(given.strip().encode("latin-1", "replace")).digest()
    if not sum(hmac.compare_digest(digest, known) for known in digests):  # a sum: none is left out
        raise ApiProblem(
            kinds.UNAUTHORIZED,
            "the key is none of those that are known here",
            headers={"WWW-Authenticate": 'Bearer realm="chiffon", error="invalid_token"'},
        )


def _is_open(app: Flask) -> bool:
    about: Operation | None = getattr(app.view_functions.get(request.endpoint or ""), "operation", None)
    return about is not None and about.is_open


def _demand_loopback() -> None:
    """The last guard: also against a page in somebody's browser whose host name has been made to mean this machine."""
    host = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else request.host
    if not (_arrived_at_loopback() and is_loopback(host)):
        raise ApiProblem(kinds.KEYS_REQUIRED, kinds.KEYS_REQUIRED.advice)


def _arrived_at_loopback() -> bool:
    """Whether the connection's local address is loopback; as the server says, where the socket is not shown."""
    connection: Any = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    if connection is None:
        return is_loopback(str(request.environ.get("SERVER_NAME", "")))
    if connection.family not in {socket.AF_INET, socket.AF_INET6}:
        return True  # a socket in the file system has permissions of its own
    return is_loopback(connection.getsockname()[0])
