"""Whether Postgres takes writes: after a failover, the address may lead to one that does not."""

from __future__ import annotations

from chiffon.domain.errors import LedgerReadOnly
from chiffon.ledger.connect import Cursor

# name: is read only  -- reads whether this is a standby, or was made read-only
_IS_READ_ONLY = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool"


def require_writable(cursor: Cursor) -> None:
    """Raise LedgerReadOnly unless Postgres takes writes."""
    cursor.execute(_IS_READ_ONLY)
    if cursor.fetchone()[0]:
        raise LedgerReadOnly("Postgres takes no writes: it is a standby, or read-only")
