"""One hand at a time: what only one process may do, it does while it holds a lock of the ledger."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg2
from psycopg2.errors import LockNotAvailable

from chiffon.domain.errors import Busy
from chiffon.ledger.connect import Cursor, Ledger

DEAD_LETTERS = 0x6465_6164
"""The lock of whoever has a hand in ``dlx_queue``: two hands hide each other's letters."""

IDLE_FOR = 30.0
"""Seconds after which Postgres takes the lock from a process that was stopped while it held it."""

AWAKE = 5.0
"""Seconds after which who holds it, and is not stopped, says a word."""

# name: take hand  -- waits for the lock, which this transaction holds until its end
_TAKE_HAND = """
SELECT set_config('lock_timeout', %(patience)s, true),
       set_config('idle_in_transaction_session_timeout', %(idle_for)s, true);
SELECT pg_advisory_xact_lock(%(lock)s)
"""


@contextmanager
def one_hand(ledger: Ledger, lock: int, *, patience: float = 8.0) -> Iterator[None]:
    """Hold ``lock`` meanwhile. ``patience``: seconds to wait for whoever holds it, less than `ANSWER_WITHIN`.

    Raises:
        Busy: it was held all the time.
        LedgerUnavailable: Postgres does not answer.
    """
    with ledger.transaction() as cursor:
        try:
            times = {"patience": f"{int(patience * 1000)}ms", "idle_for": f"{int(IDLE_FOR * 1000)}ms"}
            cursor.execute(_TAKE_HAND, {**times, "lock": lock})
        except LockNotAvailable:
            raise Busy("somebody else is looking into dlx_queue: try again in a moment") from None
        with _awake(cursor):
            yield


@contextmanager
def _awake(cursor: Cursor) -> Iterator[None]:
    """Have a thread speak on an idle transaction meanwhile, for as long as this process runs."""
    is_over = threading.Event()

    def speak() -> None:
        with suppress(psycopg2.Error):  # the commit will say so
            while not is_over.wait(AWAKE):
                cursor.execute("SELECT 1")

    thread = threading.Thread(target=speak, name="hand", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
