"""What can go wrong between here and Postgres, in the words of the domain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2

from chiffon.domain.errors import Busy, ChiffonError, LedgerReadOnly, LedgerUnavailable, SchemaBehind

_REFUSED_CLASSES = ("21", "22", "23", "54")
"""SQLSTATE classes that speak of the data and not of the server: the same statement will be refused again."""

OUTDATED = {"0A000", "26000", "42P05"}
"""SQLSTATEs of a planned statement: a migration has changed its result, or its session was made to forget it, or
knows another by its name.
"""

TAKEN_MEANWHILE = "taken meanwhile: "
"""What a statement says, as what is no number, to undo itself for having lost a race."""


class RefusedData(ChiffonError):
    """Postgres refused the values themselves; repeating the statement cannot help."""


class LostRace(Busy):
    """Another transaction had the better of this one, which did nothing: repeat it."""


class Outdated(LedgerUnavailable):
    """The session's plans are of use no longer; nothing was done, and the next statement plans anew."""


class CommitUnknown(LedgerUnavailable):
    """The connection broke while it committed: the transaction may have happened."""


@contextmanager
def committing() -> Iterator[None]:
    """Tell a commit whose answer was lost from a statement that failed, or was refused."""
    try:
        with translated():
            yield
    except LedgerUnavailable as error:
        if _is_answer(error.__cause__):
            raise
        raise CommitUnknown(str(error)) from error


@contextmanager
def translated() -> Iterator[None]:
    """Say what psycopg2 raises in the words of the domain."""
    try:
        yield
    except psycopg2.Error as error:
        state = error.pgcode or ""
        # The rest of what an error says may quote the data.
        if state == "22P02" and TAKEN_MEANWHILE in (error.diag.message_primary or ""):
            raise LostRace(f"Postgres let another transaction go first: {_first_line(error)}") from error
        if state.startswith(_REFUSED_CLASSES):
            raise RefusedData(f"Postgres refused the data: {_first_line(error)}") from error
        if state.startswith("40") or state == "55P03":  # a deadlock, no order for two, somebody holds a row too long
            raise LostRace(f"Postgres let another transaction go first: {_first_line(error)}") from error
        if state in {"42P01", "42703"}:  # undefined table, undefined column
            raise SchemaBehind(
                f"the ledger's schema is behind ({_first_line(error)}): run `chiffon db upgrade`"
            ) from error
        if state in OUTDATED:
            raise Outdated(f"the session's plans are of use no longer: {_first_line(error)}") from error
        if state == "25006":  # a read-only transaction
            raise LedgerReadOnly(f"Postgres takes no writes: {_first_line(error)}") from error
        if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError) or state.startswith(
            ("57", "08", "25")
        ):
            what = "cannot do it now" if _is_answer(error) else "does not answer"
            raise LedgerUnavailable(f"Postgres {what}: {_first_line(error)}") from error
        raise
    except UnicodeEncodeError as error:
        raise RefusedData("Postgres cannot keep a lone surrogate") from error
    except ValueError as error:  # psycopg2's own, before anything was sent
        if "NUL (0x00)" in str(error):
            raise RefusedData("Postgres cannot keep the NUL character") from error
        raise


def _is_answer(error: BaseException | None) -> bool:
    """Whether Postgres said no, and so undid what was asked. Who says it while it ends may have committed before; and a
    pooler says it when it has lost the server.
    """
    if not isinstance(error, psycopg2.Error) or error.pgcode is None:
        return False
    return error.diag.severity_nonlocalized == "ERROR" and not error.pgcode.startswith(("08", "57P"))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
