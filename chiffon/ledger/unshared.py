"""Connections that no forked child has: its copy of a socket would keep the session, and the locks, alive."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

import psycopg2


def connect_unshared(arguments: dict[str, Any]) -> Any:
    """A connection that no forked child has, or will have.

    One that was being opened while another thread forked is not known to be let go of in the child. It is ended, while
    there is nothing yet that its session could keep; a lock instead would have every fork wait for Postgres.
    """
    while True:
        with _fork_lock:  # no fork is under way
            forks = _forks
        connection = psycopg2.connect(**arguments)
        _sessions.add(connection)
        if _forks == forks:
            return connection
        connection.close()


_sessions: weakref.WeakSet[Any] = weakref.WeakSet()
_fork_lock = threading.Lock()
_forks = 0


def _before_fork() -> None:
    global _forks
    _fork_lock.acquire()
    _forks += 1


def _after_fork() -> None:
    _fork_lock.release()


def _let_go_in_child() -> None:
    """In a forked child: let go of the inherited sessions, without a word on their sockets.

    Left open, such a socket keeps the session and its locks after the parent's death. Closing it by libpq would end
    the parent's session; closing the descriptor alone would leave libpq one that may come to mean another file.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for connection in _sessions:
        if not connection.closed:
            os.dup2(nowhere, connection.fileno())
    os.close(nowhere)
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_let_go_in_child)
