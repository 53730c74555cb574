"""Free ports on loopback, outside the range from which the kernel picks."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"

_FIRST, _LAST = 15000, 31999
"""Below 32768, where Linux begins to give ports to outgoing connections (macOS: 49152): else a client that
knocks at a server which is just restarting can be given that server's own port, and then talks to itself."""

_given: set[int] = set()


def free_port() -> int:
    """Return a port that nothing listens on and that this process has not been given before."""
    while True:
        port = random.randint(_FIRST, _LAST)  # noqa: S311  -- not a secret
        if port not in _given and is_free(port):
            _given.add(port)
            return port


def is_free(port: int) -> bool:
    """Tell whether a server could listen on ``port`` of loopback now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def answers(port: int) -> bool:
    """Tell whether something accepts connections on ``port`` of loopback."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True
