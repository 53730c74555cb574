"""The ports of a stack are free, its own, and none that the kernel would give to a client."""

from __future__ import annotations

import socket

from chiffon.devstack.ports import LOOPBACK, answers, free_port, is_free


def test_a_port_is_given_once_and_lies_below_the_range_for_clients() -> None:
    given = [free_port() for _ in range(50)]
    assert len(set(given)) == 50
    assert max(given) < 32768


def test_a_port_that_something_listens_on_is_not_free_and_answers() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert answers(port)
    assert not answers(port)
