"""Where a request may go: a URL taken apart once, and every address of its host checked."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from chiffon import Fail

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Iterable[str]]
"""Host and port to the texts of its addresses. Raises OSError."""

_PORTS = {"http": 80, "https": 443}
_UNICAST = IPv6Network("2000::/3")  # all of IPv6 that is given out to the public (RFC 4291)
_NAT64 = IPv6Network("64:ff9b::/96")  # the last 32 bits are an IPv4 address (RFC 6052)
_NEVER = tuple(
    ip_network(text)
    for text in (
        "192.0.0.0/24",  # IETF protocol assignments; a cloud's metadata at .192
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # Azure's own services, at an address that looks public
        "2001::/23",  # IETF protocol assignments: Teredo, ORCHID
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address, perhaps a private one
        "3fff::/20",  # documentation
    )
)
"""What Python's `is_global` takes for public in one version or another, and is not."""


@dataclass(frozen=True)
class Destination:
    """A URL's parts. ``host`` is lower case, in ASCII, an IPv6 address in brackets; ``path`` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> Destination:
        """Take ``url`` apart. Raises Fail for what is no http or https URL, and for one that carries a password."""
        try:
            parts = parse_url(url)
        except LocationParseError as error:
            raise Fail(f"this is no URL: {error}") from None
        if parts.scheme not in _PORTS or not parts.host:
            raise Fail(f"the URL must look like https://host/path, which {_shown(url)!r} does not")
        if parts.auth:
            raise Fail("a URL is shown and logged: give the credentials in an Authorization header, not in the URL")
        return cls(parts.scheme, parts.host, parts.port or _PORTS[parts.scheme], parts.request_uri)

    @property
    def name(self) -> str:
        """What resolvers and certificates call the host: no brackets, no zone."""
        return self.host.strip("[]").split("%")[0]

    @property
    def host_header(self) -> str:
        """The ``Host`` field (RFC 9110 section 7.2)."""
        return self.host if self.port == _PORTS[self.scheme] else f"{self.host}:{self.port}"

    @property
    def origin(self) -> tuple[str, str, int]:
        """Whom credentials are meant for (RFC 6454)."""
        return self.scheme, self.host, self.port

    @property
    def url(self) -> str:
        """The whole URL, without a fragment."""
        return f"{self.scheme}://{self.host_header}{self.path}"

    @property
    def shown(self) -> str:
        """The URL without its query, which may hold secrets."""
        return _shown(self.url)


def system_addresses(host: str, port: int) -> list[str]:
    """What the system's resolver says: DNS, the hosts file, and every spelling of an IPv4 address."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{host!r} is no host name: {error}") from None
    return [str(entry[4][0]) for entry in found]


def checked_addresses(target: Destination, allow: Iterable[Network], resolve: Resolve) -> list[Address]:
    """The addresses of the host, once each. One that is forbidden forbids all: which is used would be chance.

    Connect to one of these and resolve no second time, since a name may mean another address by then.

    Raises:
        Fail: an address is neither public nor in one of the networks allowed.
        OSError: the name cannot be resolved.
    """
    networks = tuple(allow)
    addresses = list(dict.fromkeys(ip_address(text) for text in resolve(target.name, target.port)))
    for address in addresses:
        if not may_be_reached(address, networks):
            raise Fail(
                f"{target.name!r} leads to {address}, which is not a public address:"
                " CHIFFON_HTTP_ALLOW_NETWORKS names the networks that may be reached beside those"
            )
    return addresses


def may_be_reached(address: Address, allow: Iterable[Network]) -> bool:
    """Whether an address is public, or in one of the networks ``allow``."""
    real = (address.ipv4_mapped if isinstance(address, IPv6Address) else None) or address
    return any(real in network for network in allow) or _is_public(real)


def _is_public(address: Address) -> bool:
    if any(address in network for network in _NEVER):
        return False
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return _is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        return address in _UNICAST and address.is_global
    return address.is_global and not address.is_multicast and not address.is_reserved


def _shown(url: str) -> str:
    return url.split("?")[0].split("#")[0][:200]
