"""`http.request`: what it sends, what it hands back, and when it gives up."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from chiffon import Fail, settings
from chiffon.domain.errors import InvalidParameters
from chiffon.domain.work import registry
from tests.unit.loopback import RULES, Handler, Server, get, resolver, serving
from workers.exchange import RequestFailed
from workers.http import UnexpectedStatus, fetch, prepare, request


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as ours:
        yield ours


# The answer


def test_an_answer_is_the_result(server: Server) -> None:
    server.answers("/hello?x=1", 200, "grüß".encode(), Content_Type="text/plain", X_Own="yes")

    answer = get(server.url("/hello?x=1#part"))

    assert answer["status"] == 200
    assert answer["body"] == "grüß"
    assert answer["encoding"] == "text"
    assert answer["headers"]["x-own"] == "yes"
    assert answer["url"] == server.url("/hello?x=1")
    assert not answer["truncated"]
    assert answer["duration_seconds"] >= 0


def test_method_headers_and_body_are_sent(server: Server) -> None:
    server.answers("/")

    fetch(prepare("POST", server.url(), {"X-Own": "a b"}, "é", None), RULES, 10)

    seen = server.seen[0]
    assert (seen.method, seen.body, seen.headers["x-own"]) == ("POST", "é".encode(), "a b")
    assert seen.headers["content-type"] == "text/plain; charset=utf-8"


def test_json_is_sent_as_json(server: Server) -> None:
    server.answers("/")

    fetch(prepare("PUT", server.url(), {}, None, {"a": [1]}), RULES, 10)

    assert json.loads(server.seen[0].body) == {"a": [1]}
    assert server.seen[0].headers["content-type"] == "application/json"


def test_the_callers_header_fields_come_before_ours(server: Server) -> None:
    server.answers("/")

    fetch(prepare("POST", server.url(), {"CONTENT-TYPE": "text/csv", "User-Agent": "me"}, "a,b", None), RULES, 10)

    assert server.seen[0].headers["content-type"] == "text/csv"
    assert server.seen[0].headers["user-agent"] == "me"


def test_the_host_is_told_by_name(server: Server) -> None:
    server.answers("/")

    get(server.url(host="Pinned.test"), replace(RULES, resolve=resolver(["127.0.0.1"])))

    assert server.seen[0].headers["host"] == f"pinned.test:{server.port}"


def test_the_answer_to_head_has_no_body(server: Server) -> None:
    server.answers("/", 200, b"12345")

    assert fetch(prepare("HEAD", server.url(), {}, None, None), RULES, 10)["body"] == ""


@pytest.mark.parametrize(
    ("body", "content_type", "shown"),
    [
        ("é".encode("latin-1"), "text/html; charset=ISO-8859-1", "é"),
        ("é".encode(), "text/html; charset=no-such", "é"),
        ("é".encode(), "text/html; charset=punycode", "é"),
        ("é".encode("utf-16"), "text/html; charset=utf-16", "é"),
    ],
)
def test_text_is_read_in_the_charset_it_names(server: Server, body: bytes, content_type: str, shown: str) -> None:
    server.answers("/", 200, body, Content_Type=content_type)

    assert get(server.url())["body"] == shown


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"a\x00b", bytes(range(256))])
def test_what_is_not_text_is_base64(server: Server, body: bytes) -> None:
    server.answers("/", 200, body)

    answer = get(server.url())

    assert answer["encoding"] == "base64"
    assert base64.b64decode(answer["body"]) == body


@pytest.mark.parametrize("piece", [b"a", b'"', "€".encode(), "\U0001f600".encode(), b"\xff"])
def test_of_a_huge_body_the_beginning_is_kept_and_the_result_has_room(server: Server, piece: bytes) -> None:
    body = piece * (3_000_000 // len(piece))
    server.answers("/", 200, body)

    for limit in (1_000_000, 100_001, 100_002, 100_003):
        answer = get(server.url(), replace(RULES, max_result=limit))
        kept = base64.b64decode(answer["body"]) if answer["encoding"] == "base64" else answer["body"].encode()
        assert answer["truncated"]
        assert body.startswith(kept)
        assert limit * 0.7 < len(json.dumps(answer)) <= limit
        assert (answer["encoding"] == "base64") == (piece == b"\xff")


def test_a_body_that_unpacks_hugely_is_cut_too(server: Server) -> None:
    server.answers("/", 200, gzip.compress(bytes(100_000_000)), Content_Encoding="gzip")

    answer = get(server.url())

    assert answer["truncated"]
    assert len(json.dumps(answer)) <= 1_000_000


def test_header_fields_without_end_are_refused(server: Server) -> None:
    server.answers("/", 200, b"", **{f"X-{n}": "v" * 2000 for n in range(50)})

    with pytest.raises(RequestFailed, match="header fields"):
        get(server.url())


# What counts as failed


@pytest.fixture
def loopback_allowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CHIFFON_HTTP_ALLOW_NETWORKS", "127.0.0.0/8")
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.mark.usefixtures("loopback_allowed")
def test_the_callers_errors_are_results_and_the_servers_are_not(server: Server) -> None:
    server.answers("/503?token=abc", 503, b"try later")

    assert request(server.url("/missing"))["status"] == 404
    with pytest.raises(UnexpectedStatus, match=r"/503 was answered 503: try later$"):
        request(server.url("/503?token=abc"))


@pytest.mark.usefixtures("loopback_allowed")
def test_only_statuses_that_are_expected_are_results(server: Server) -> None:
    server.answers("/503", 503)
    server.answers("/200", 200)

    assert request(server.url("/503"), expect=[503])["status"] == 503
    with pytest.raises(UnexpectedStatus, match="200"):
        request(server.url("/200"), expect=[404, 503])


def test_nothing_but_public_addresses_is_reached_unless_a_setting_says_so(server: Server) -> None:
    with pytest.raises(Fail, match="CHIFFON_HTTP_ALLOW_NETWORKS"):
        request(server.url())
    assert server.seen == []


@pytest.mark.parametrize("parameters", [{"method": "get"}, {"method": "TRACE"}, {"timeout": 0}, {"timeout": 301}])
def test_parameters_that_make_no_sense_do_not_fit(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameters):
        registry.get("http.request").validate({"url": "http://example.com", **parameters})


def test_a_failed_request_is_not_repeated_by_itself() -> None:
    assert registry.get("http.request").retries == 0


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"X": "a\r\nY: b"}, "cannot be sent"),
        ({"X": "日本"}, "cannot be sent"),
        ({"X Y": "a"}, "no name"),
        ({"": "a"}, "no name"),
        ({"Host": "other"}, "leave it out"),
        ({"Transfer-Encoding": "chunked"}, "leave it out"),
    ],
)
def test_header_fields_that_cannot_be_sent_are_refused(headers: dict[str, str], why: str) -> None:
    with pytest.raises(Fail, match=why):
        prepare("GET", "http://example.com/", headers, None, None)


def test_a_body_and_json_together_are_refused() -> None:
    with pytest.raises(Fail, match="not both"):
        prepare("POST", "http://example.com/", {}, "a", {"b": 1})


def test_nobody_listening_is_a_failure_that_may_pass(server: Server) -> None:
    with serving() as gone:
        url = gone.url("/path?token=abc")
    with pytest.raises(RequestFailed, match=r"/path: .*refused") as failure:
        get(url)
    assert "abc" not in str(failure.value)


def test_a_name_that_does_not_resolve_is_a_failure_that_may_pass() -> None:
    def nothing(host: str, port: int) -> Sequence[str]:
        raise OSError("Name or service not known")

    with pytest.raises(RequestFailed, match=r"'no-such\.test' cannot be resolved"):
        get("http://no-such.test/", replace(RULES, resolve=nothing))


def test_a_name_that_is_too_long_is_a_failure() -> None:
    with pytest.raises(RequestFailed, match="cannot be resolved"):
        get(f"http://{'a' * 64}.test/")


def test_an_answer_that_breaks_off_is_a_failure(server: Server) -> None:
    def break_off(handler: Handler) -> None:
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    server.routes["/"] = break_off
    with pytest.raises(RequestFailed, match="IncompleteRead"):
        get(server.url())


def test_an_answer_that_is_no_http_is_a_failure(server: Server) -> None:
    server.routes["/"] = lambda handler: handler.drip(b"SSH-2.0-OpenSSH_9.2\r\n")
    with pytest.raises(RequestFailed, match="SSH"):
        get(server.url())


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
    ],
)
def test_a_server_that_drips_is_left_at_the_deadline(server: Server, start: bytes) -> None:
    server.routes["/"] = lambda handler: handler.drip(start)
    began = time.monotonic()

    with pytest.raises(RequestFailed, match=r"no whole answer within 0\.3 seconds"):
        get(server.url(), timeout=0.3)

    assert 0.3 <= time.monotonic() - began < 2


def test_a_server_that_is_silent_is_left_at_the_deadline(server: Server) -> None:
    server.routes["/"] = lambda handler: handler.ours.stopping.wait(60) and None
    began = time.monotonic()

    with pytest.raises(RequestFailed):
        get(server.url(), timeout=0.3)

    assert time.monotonic() - began < 2


def test_the_deadline_is_for_all_redirects_together(server: Server) -> None:
    def redirect_late(handler: Handler) -> None:
        handler.ours.stopping.wait(0.2)
        handler.answer(302, b"", {"Location": "/"})

    server.routes["/"] = redirect_late
    with pytest.raises(RequestFailed):
        get(server.url(), timeout=0.5)
    assert len(server.seen) <= 3
