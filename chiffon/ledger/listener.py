"""Who waits for tasks to end: one thread and one session a process LISTEN for all of them, while anybody waits."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
import time
import weakref
from collections.abc import Collection, Iterable
from functools import cache
from types import TracebackType
from typing import Any, Self

from chiffon.domain.errors import LedgerUnavailable
from chiffon.ledger.connect import open_session
from chiffon.ledger.effects import CHANNEL
from chiffon.ledger.failures import translated

logger = logging.getLogger(__name__)

REREAD = 5.0
"""Seconds after which a waiter reads again without having been told to: while a session is lost, nobody is told."""

LINGER = 30.0
"""Seconds that the session stays open after the last waiter has left: the next is likely to come soon."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
_TICK = 1.0


class Subscription:
    """One waiter's ear. Subscribe first, *then* read: what ended in between is told, or has been read.

    One thread may wait at a time.
    """

    def __init__(self, listener: Listener, task_ids: frozenset[str]) -> None:
        self.task_ids = task_ids
        self._listener = listener
        self._told: set[str] = set()
        self._news = threading.Event()
        self._next_look = time.monotonic() + listener.reread

    def wait(self, timeout: float | None) -> frozenset[str]:
        """Wait up to ``timeout`` seconds (None: for ever) for ids that are worth reading now.

        Returns:
            Those that have ended; all of them after a reconnect, and every few seconds; none if the time is over.
        """
        patience = max(0.0, self._next_look - time.monotonic())
        self._news.wait(patience if timeout is None else min(patience, max(0.0, timeout)))
        with self._listener.lock:
            told, self._told = self._told, set()
            self._news.clear()
        if time.monotonic() >= self._next_look:
            told |= self.task_ids
        if told == self.task_ids:
            self._next_look = time.monotonic() + self._listener.reread
        return frozenset(told)

    def tell(self, task_ids: Iterable[str]) -> None:
        """Wake the waiter; for the listener, which holds its lock."""
        self._told.update(task_ids)
        self._news.set()

    def close(self) -> None:
        """Wait no more."""
        self._listener.leave(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Listener:
    """Wakes waiters. It starts with the first of them, reconnects for as long as one is left, and then stops.

    Safe to share between threads; a forked child has one of its own, with no waiters. ``url`` must not lead through
    a transaction pooler, which would swallow LISTEN. Durations are seconds.
    """

    lock: threading.Lock
    _waiting: dict[str, set[Subscription]]
    _left_at: float
    _thread: threading.Thread | None
    _session: Any

    def __init__(self, url: str, *, reread: float = REREAD, linger: float = LINGER) -> None:
        self.url = url
        self.reread = reread
        self.linger = linger
        self._begin()
        _begin_again_after_forks(self)

    @property
    def session(self) -> Any:
        """The connection that LISTENs now, or None."""
        session = self._session
        return None if session is None or session.closed else session

    def subscribe(self, task_ids: Collection[str]) -> Subscription:
        """An ear for these tasks, to be closed. It does not wait for Postgres: a session that opens later tells."""
        subscription = Subscription(self, frozenset(task_ids))
        with self.lock:
            for task_id in subscription.task_ids:
                self._waiting.setdefault(task_id, set()).add(subscription)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="chiffon-listener", daemon=True)
                self._thread.start()
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Forget a waiter."""
        with self.lock:
            for task_id in subscription.task_ids:
                others = self._waiting.get(task_id, set())
                others.discard(subscription)
                if not others:
                    self._waiting.pop(task_id, None)
            self._left_at = time.monotonic()

    def _begin(self) -> None:
        self.lock = threading.Lock()
        self._waiting = {}
        self._left_at = time.monotonic()
        self._thread = None
        self._session = None

    def begin_again(self) -> None:
        """Forget, in a forked child, what is the parent's: its waiters, its thread, its lock and its session.

        The session's socket is let go of by `unshared`, as every session's is.
        """
        self._begin()

    def _run(self) -> None:
        pause = _SHORTEST_PAUSE
        while True:
            began = time.monotonic()
            try:
                self._listen()
                return
            except LedgerUnavailable as error:
                logger.warning("cannot listen for the ends of tasks: %s", error)
            except Exception:  # without a listener, every waiter would wait for its next look
                logger.exception("the listener failed")
            if time.monotonic() - began > _LONGEST_PAUSE:
                pause = _SHORTEST_PAUSE
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            if not self._is_wanted(linger=0):
                return

    def _listen(self) -> None:
        """Wake waiters until nobody wants it any more."""
        with contextlib.closing(open_session(self.url, "chiffon listener")) as session, translated():
            self._session = session
            session.autocommit = True
            with session.cursor() as cursor:
                cursor.execute(f"LISTEN {CHANNEL}")
            self._tell_all()  # some may have ended before
            while self._is_wanted(self.linger):
                self._tell(_heard(session))

    def _is_wanted(self, linger: float) -> bool:
        """Whether to go on. Once it has said no the thread is forgotten, so that the next waiter starts another."""
        with self.lock:
            if self._waiting or time.monotonic() - self._left_at < linger:
                return True
            self._thread = None
            return False

    def _tell(self, task_ids: Iterable[str]) -> None:
        with self.lock:
            for task_id in task_ids:
                for subscription in self._waiting.get(task_id, ()):
                    subscription.tell([task_id])

    def _tell_all(self) -> None:
        with self.lock:
            everybody: set[Subscription] = set().union(*self._waiting.values())
            for subscription in everybody:
                subscription.tell(subscription.task_ids)


@cache
def listener_at(url: str) -> Listener:
    """This process's listener at ``url``."""
    return Listener(url)


def _heard(session: Any) -> set[str]:
    """Wait a moment for notifications; the ids that they carry."""
    with selectors.DefaultSelector() as selector:
        selector.register(session, selectors.EVENT_READ)
        selector.select(_TICK)
    session.poll()
    task_ids = {notification.payload for notification in session.notifies}
    session.notifies.clear()
    return task_ids


def _begin_again_after_forks(listener: Listener) -> None:
    alive = weakref.ref(listener)

    def in_child() -> None:
        found = alive()
        if found is not None:
            found.begin_again()

    os.register_at_fork(after_in_child=in_child)
