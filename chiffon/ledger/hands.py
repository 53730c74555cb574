"""One hand at a time: what only one process may do, it does while it holds a lock of the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg2.errors import LockNotAvailable

from chiffon.domain.errors import Busy
from chiffon.ledger.connect import Ledger

DEAD_LETTERS = 0x6465_6164
"""The lock of whoever has a hand in ``dlx_queue``: two hands hide each other's letters."""

# name: take hand  -- waits for the lock, which this transaction holds until its end, idle for as long as it takes
_TAKE_HAND = """
SELECT set_config('lock_timeout', %(patience)s, true), set_config('idle_in_transaction_session_timeout', '0', true);
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
            cursor.execute(_TAKE_HAND, {"patience": f"{int(patience * 1000)}ms", "lock": lock})
        except LockNotAvailable:
            raise Busy("somebody else is looking into dlx_queue: try again in a moment") from None
        yield
