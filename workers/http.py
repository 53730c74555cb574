"""`http.request`: one HTTP request, to public addresses unless the operator allows more."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from json import dumps
from typing import Annotated, Any, Literal, TypedDict
from urllib.parse import urljoin

from pydantic import Field

from chiffon import Fail, settings, work
from workers.destination import Destination, Network, Resolve, checked_addresses, system_addresses
from workers.exchange import Deadline, Request, RequestFailed, Response, exchange

MAX_REDIRECTS = 5
MAX_BODY = 1_000_000
"""Bytes of a response's body that are read."""

MAX_HEADERS = 65_536
"""Bytes of JSON that a response's header fields may have."""

MAX_TIMEOUT = 300.0
"""Seconds that a caller may give a request."""

_TOLD = 500
"""Characters of a body in the error about an unexpected status."""

_REDIRECTS = {301, 302, 303, 307, 308}
_OURS = {"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect"}
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token, RFC 9110 section 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # section 5.5 there
_CHARSETS = re.compile(
    r"utf-?(8|16|16le|16be)|us-ascii|iso-8859-\d+|windows-\d+|koi8-[ru]|gb(k|2312|18030)|big5|shift_jis|euc-(jp|kr)",
    re.IGNORECASE,
)
"""What a body may say that it is written in. Python knows codecs beside these that are not for text, or slow."""

_CHARSET = re.compile(r"charset=[\"']?([\w.:-]+)", re.IGNORECASE)

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class UnexpectedStatus(Exception):
    """The answer's status is not one of those expected. The retry policy decides whether it is asked again."""


class Answer(TypedDict):
    """What `http.request` gives. ``encoding`` says how to read ``body``; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: str
    encoding: Literal["text", "base64"]
    url: str
    truncated: bool
    duration_seconds: float


@dataclass(frozen=True)
class Rules:
    """What the operator sets. ``secret``: parts of the names of header fields that are for one origin only.

    ``max_result`` is bytes of JSON; ``resolve`` gives the addresses of a host.
    """

    allow: tuple[Network, ...] = ()
    secret: tuple[str, ...] = ()
    max_result: int = 1_000_000
    resolve: Resolve = system_addresses


@work("http.request", timeout=MAX_TIMEOUT + 30)
def request(
    url: str,
    method: Method = "GET",
    headers: dict[str, str] | None = None,
    body: str | None = None,
    json: Any = None,
    timeout: Annotated[float, Field(gt=0, le=MAX_TIMEOUT)] = 30.0,
    expect: list[int] | None = None,
) -> Answer:
    """Send an HTTP request, and give the answer.

    ``body`` is sent as UTF-8 text, or ``json`` as JSON; not both. ``timeout`` is seconds for all of it, redirects
    included, the look-up of the name not. Every answer is a result, an error of the caller's (4xx) too, but for a
    failure of the server (5xx), which fails the task; with ``expect``, a list of statuses, all others do. A failure is
    not repeated unless the dispatch says ``max_retries``: only its author knows whether the request may be sent twice.

    Only public addresses are reached, and the networks in ``CHIFFON_HTTP_ALLOW_NETWORKS``; every address of the host
    must be one of them. Up to 5 redirects are followed, each checked in the same way; one to another origin takes no
    credentials along. Proxies of the environment are not used: they would resolve the name again.

    The body is text, or base64 for what is not text, as ``encoding`` says. Of a long one the beginning is kept, and
    ``truncated`` is true.
    """
    given = settings()
    rules = Rules(given.http_allow_networks, given.secret_parameters, given.max_result)
    answer = fetch(prepare(method, url, headers or {}, body, json), rules, timeout)
    status = answer["status"]
    if status >= 500 if expect is None else status not in expect:
        told = f": {answer['body'][:_TOLD]}" if answer["encoding"] == "text" and answer["body"] else ""
        raise UnexpectedStatus(f"{method} {Destination.of(answer['url']).shown} was answered {status}{told}")
    return answer


def prepare(method: Method, url: str, headers: Mapping[str, str], body: str | None, json: Any) -> Request:
    """The request to send. Raises Fail for one that cannot be sent."""
    if body is not None and json is not None:
        raise Fail("give 'body' or 'json', not both")
    for name, value in headers.items():
        _check_field(name, value)
    fields = {"accept": "*/*", "user-agent": "chiffon"}
    content = None
    if json is not None:
        content, fields["content-type"] = dumps(json).encode(), "application/json"
    elif body is not None:
        content, fields["content-type"] = body.encode(), "text/plain; charset=utf-8"
    fields.update({name.lower(): value for name, value in headers.items()})
    return Request(method, Destination.of(url), fields, content)


def _check_field(name: str, value: str) -> None:
    if not _NAME.fullmatch(name):
        raise Fail(f"{name!r} is no name for a header field")
    if name.lower() in _OURS:
        raise Fail(f"the header field {name!r} follows from the request: leave it out")
    if not _VALUE.fullmatch(value):
        raise Fail(f"the value of the header field {name!r} holds a character that cannot be sent")


def fetch(sent: Request, rules: Rules, timeout: float) -> Answer:
    """Send the request, follow redirects, give the last answer. ``timeout``: seconds for all.

    Raises:
        Fail: a forbidden address, a redirect that is no URL, or too many.
        RequestFailed: no whole answer in time.
    """
    began, deadline = time.monotonic(), Deadline.after(timeout)
    for _ in range(MAX_REDIRECTS + 1):
        try:
            addresses = checked_addresses(sent.target, rules.allow, rules.resolve)
        except OSError as error:
            raise RequestFailed(f"{sent.target.name!r} cannot be resolved: {error}") from error
        response = exchange(sent, addresses, deadline, max_body=min(MAX_BODY, rules.max_result))
        onward = _redirected(sent, response, rules.secret)
        if onward is None:
            return _answer(sent.target.url, response, rules.max_result, time.monotonic() - began)
        sent = onward
    raise Fail(f"there were more than {MAX_REDIRECTS} redirects, the last to {sent.target.shown}")


def _redirected(sent: Request, response: Response, secret: tuple[str, ...]) -> Request | None:
    """The request that a redirect asks for (RFC 9110 section 15.4), or None if the answer is not one."""
    location = response.headers.get("location")
    if response.status not in _REDIRECTS or location is None:
        return None
    try:
        # Header fields are read as Latin-1; those who send more than ASCII mean UTF-8.
        url = urljoin(sent.target.url, location.encode("latin-1").decode(errors="replace"))
    except ValueError as error:
        raise Fail(f"{sent.target.shown} redirects to what is no URL: {error}") from None
    target = Destination.of(url)
    method, body, headers = sent.method, sent.body, dict(sent.headers)
    if (response.status == 303 and method != "HEAD") or (response.status in (301, 302) and method == "POST"):
        method, body = "GET", None
        headers = {name: value for name, value in headers.items() if not name.startswith("content-")}
    if not _may_share_credentials(sent.target, target):
        words = ("cookie", "authorization", *secret)
        headers = {
            name: value for name, value in headers.items() if not any(w in name.replace("-", "_") for w in words)
        }
    return Request(method, target, headers, body)


def _may_share_credentials(first: Destination, then: Destination) -> bool:
    is_upgrade = (first.scheme, first.port, then.scheme, then.port) == ("http", 80, "https", 443)
    return first.origin == then.origin or (first.host == then.host and is_upgrade)


def _answer(url: str, response: Response, max_result: int, seconds: float) -> Answer:
    headers = {name: value.replace("\x00", "\ufffd") for name, value in response.headers.items()}
    if len(dumps(headers)) > MAX_HEADERS:
        raise RequestFailed(f"the answer's header fields are longer than {MAX_HEADERS} bytes")
    room = max_result - len(dumps(headers)) - len(dumps(url)) - 200
    text = _as_text(response)
    whole = base64.b64encode(response.body).decode() if text is None else text
    body = _fit(whole, room, step=4 if text is None else 1)
    return Answer(
        status=response.status,
        headers=headers,
        body=body,
        encoding="base64" if text is None else "text",
        url=url,
        truncated=response.truncated or len(body) < len(whole),
        duration_seconds=round(seconds, 3),
    )


def _as_text(response: Response) -> str | None:
    """The body as text that Postgres can keep, or None if it is not text."""
    named = _CHARSET.search(response.headers.get("content-type", ""))
    charset = named[1] if named and _CHARSETS.fullmatch(named[1]) else "utf-8"
    for torn in range(4 if response.truncated else 1):  # a cut may fall into a character, of 4 bytes at most
        try:
            text = response.body[: len(response.body) - torn].decode(charset)
            text.encode()
        except (UnicodeError, LookupError):
            continue
        return None if "\x00" in text else text
    return None


def _fit(text: str, room: int, *, step: int) -> str:
    """As much of the beginning as JSON can say in ``room`` bytes; a multiple of ``step`` characters if it is cut."""
    while text and (size := len(dumps(text))) > room:
        keep = max(0, min(len(text) - step, len(text) * room // size))
        text = text[: keep - keep % step]
    return text
