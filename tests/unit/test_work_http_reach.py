"""`http.request`: whom it talks to, by redirect, by name and by address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from chiffon import Fail
from tests.unit.loopback import CERTIFICATE, LOOPBACK, RULES, Server, get, resolver, serving
from workers.destination import Destination, checked_addresses, may_be_reached, system_addresses
from workers.exchange import RequestFailed
from workers.http import Rules, fetch, prepare

ONLY_FIRST = (ip_network("127.0.0.1/32"),)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as ours:
        yield ours


# Redirects


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"), (303, "PUT", "GET"), (303, "HEAD", "HEAD"),
        (301, "PUT", "PUT"), (307, "POST", "POST"), (308, "POST", "POST"), (302, "GET", "GET"),
    ],
)  # fmt: skip
def test_a_redirect_keeps_the_method_or_becomes_get(server: Server, status: int, method: Any, then: str) -> None:
    server.redirects("/", "/next", status)
    server.answers("/next")
    body = "content" if method in ("POST", "PUT") else None

    answer = fetch(prepare(method, server.url(), {}, body, None), RULES, 10)

    assert answer["url"] == server.url("/next")
    assert server.seen[1].method == then
    assert server.seen[1].body == (b"content" if then in ("POST", "PUT") else b"")
    assert ("content-type" in server.seen[1].headers) == (then in ("POST", "PUT"))


def test_a_redirect_may_be_relative_and_in_utf_8(server: Server) -> None:
    server.redirects("/a/b", "../grün".encode().decode("latin-1"))
    server.answers("/gr%C3%BCn", 200, b"there")

    assert get(server.url("/a/b"))["body"] == "there"


def test_five_redirects_are_followed_and_no_more(server: Server) -> None:
    for n in range(6):
        server.redirects(f"/{n}", f"/{n + 1}")
    server.answers("/6", 200)

    assert get(server.url("/1"))["status"] == 200
    with pytest.raises(Fail, match="more than 5 redirects"):
        get(server.url("/0"))


def test_a_redirect_without_a_target_is_an_answer(server: Server) -> None:
    server.answers("/", 302)

    assert get(server.url())["status"] == 302


def test_credentials_stay_with_the_origin_they_were_given_for(server: Server) -> None:
    secrets = {"Authorization": "Bearer x", "Cookie": "x", "X_Api_Key": "x", "X_Auth_Token": "x"}
    with serving("127.0.0.2") as other:
        server.redirects("/", "/here")
        server.redirects("/here", other.url())
        other.answers("/")

        get(server.url(), X_Own="kept", **secrets)

    names = {name.lower().replace("_", "-") for name in secrets}
    assert names <= server.seen[1].headers.keys()
    assert not names & other.seen[0].headers.keys()
    assert other.seen[0].headers["x-own"] == "kept"


@pytest.mark.parametrize(
    "location", ["http://127.0.0.2:{port}/", "//127.0.0.2:{port}/", "http://[::ffff:127.0.0.2]:{port}/"]
)
def test_a_redirect_to_a_forbidden_address_is_not_followed(server: Server, location: str) -> None:
    with serving("127.0.0.2") as forbidden:
        server.redirects("/", location.format(port=forbidden.port))

        with pytest.raises(Fail, match=r"(127\.0\.0\.2|7f00:2), which is not a public address"):
            get(server.url(), replace(RULES, allow=ONLY_FIRST))

        assert forbidden.seen == []


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://u:p@127.0.0.1/", "http://[::1"])
def test_a_redirect_to_what_is_no_plain_url_is_not_followed(server: Server, location: str) -> None:
    server.redirects("/", location)

    with pytest.raises(Fail, match="URL"):
        get(server.url())


# Addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:{port}/",
        "http://LOCALHOST.:{port}/",
        "http://127.0.0.1:{port}/",
        "http://2130706433:{port}/",
        "http://0177.0.0.1:{port}/",
        "http://0x7f.1:{port}/",
        "http://127.1:{port}/",
        "http://0.0.0.0:{port}/",
        "http://0:{port}/",
        "http://[::1]:{port}/",
        "http://[::]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://[::127.0.0.1]:{port}/",
        "http://[64:ff9b::127.0.0.1]:{port}/",
        "http://example.com%2F@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}\\@example.com/",
    ],
)
def test_no_spelling_of_a_forbidden_address_is_reached(server: Server, url: str) -> None:
    with pytest.raises((Fail, RequestFailed)):
        get(url.format(port=server.port), Rules())
    assert server.seen == []


def test_a_name_that_leads_to_loopback_is_forbidden_and_can_be_allowed(server: Server) -> None:
    server.answers("/", 200, b"hello")

    with pytest.raises(Fail, match=r"'localhost' leads to .*CHIFFON_HTTP_ALLOW_NETWORKS"):
        get(server.url(host="localhost"), Rules())
    assert get(server.url(host="localhost"))["body"] == "hello"


def test_one_forbidden_address_among_others_forbids_the_name(server: Server) -> None:
    rules = Rules(resolve=resolver(["93.184.216.34", "127.0.0.1"]))

    with pytest.raises(Fail, match=r"leads to 127\.0\.0\.1"):
        get(server.url(host="two-faced.test"), rules)


def test_the_address_that_was_checked_is_the_one_that_is_reached(server: Server) -> None:
    server.answers("/", 200, b"the first")
    with serving("127.0.0.2", server.port) as second:
        rules = Rules(allow=ONLY_FIRST, resolve=resolver(["127.0.0.1"], ["127.0.0.2"]))

        assert get(server.url(host="rebinds.test"), rules)["body"] == "the first"
        with pytest.raises(Fail, match=r"leads to 127\.0\.0\.2"):
            get(server.url(host="rebinds.test"), rules)

        assert second.seen == []


def test_each_redirect_is_resolved_and_checked_again(server: Server) -> None:
    server.redirects("/", server.url("/next", host="rebinds.test"))

    with pytest.raises(Fail, match=r"169\.254\.169\.254"):
        get(
            server.url(host="rebinds.test"),
            replace(RULES, resolve=resolver(["127.0.0.1"], ["169.254.169.254"])),
        )


def test_the_next_address_is_tried_when_one_does_not_answer(server: Server) -> None:
    server.answers("/", 200, b"here")
    rules = replace(RULES, resolve=resolver(["127.0.0.3", "127.0.0.1", "127.0.0.3"]))

    assert get(server.url(host="many.test"), rules)["body"] == "here"


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_may_be_reached(address: str) -> None:
    assert may_be_reached(ip_address(address), ())


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "169.254.169.254", "172.16.0.1",  # noqa: S104
        "192.168.1.1",
        "192.0.0.192", "198.18.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "168.63.129.16",
        "::", "::1", "::127.0.0.1", "::ffff:10.0.0.1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254",
        "ff02::1", "2001:db8::1", "2002:7f00:1::1", "2001:0:7f00:1::", "64:ff9b::a00:1", "64:ff9b:1::a00:1", "100::1",
    ],
)  # fmt: skip
def test_other_addresses_may_not(address: str) -> None:
    assert not may_be_reached(ip_address(address), ())


def test_an_allowed_network_covers_its_addresses_in_every_form() -> None:
    allow = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))

    assert may_be_reached(ip_address("10.1.2.3"), allow)
    assert may_be_reached(ip_address("::ffff:10.1.2.3"), allow)
    assert may_be_reached(ip_address("fd00::1"), allow)
    assert not may_be_reached(ip_address("192.168.0.1"), allow)


def test_the_systems_resolver_knows_localhost() -> None:
    target = Destination.of("http://localhost/")

    assert checked_addresses(target, LOOPBACK, system_addresses)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "/path",
        "ftp://example.com/",
        "http://",
        "http:///x",
        "http://a b/",
        "http://h:99999/",
        "http://[::1",
    ],
)
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(Fail, match="URL"):
        Destination.of(url)


def test_a_password_in_a_url_is_refused_without_being_repeated() -> None:
    with pytest.raises(Fail, match="Authorization header") as refusal:
        Destination.of("http://user:hunter2@example.com/")
    assert "hunter2" not in str(refusal.value)


# TLS


def test_the_certificate_is_held_against_the_name_and_not_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    with serving(tls=True) as server:
        server.answers("/", 200, b"safe")
        rules = replace(RULES, resolve=lambda host, port: ["127.0.0.1"])

        assert get(f"https://pinned.test:{server.port}/", rules)["body"] == "safe"
        with pytest.raises(RequestFailed, match="certificate"):
            get(f"https://other.test:{server.port}/", rules)


def test_a_certificate_that_nobody_vouches_for_is_refused() -> None:
    with serving(tls=True) as server, pytest.raises(RequestFailed, match="certificate"):
        get(f"https://pinned.test:{server.port}/", replace(RULES, resolve=lambda host, port: ["127.0.0.1"]))
