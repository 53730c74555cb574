"""Whether the ledger's address is one that Postgres' driver can use: known before anybody tries to connect."""

from __future__ import annotations

from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn
from sqlalchemy import make_url
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.exc import SQLAlchemyError

from chiffon.config import PREFIX, Settings, SettingsError

_DIALECT: Any = PGDialect_psycopg2()  # type: ignore[no-untyped-call]
"""Reads a URL as the pool's engine does, options and several hosts included."""


def connect_arguments(url: str) -> dict[str, Any]:
    """What psycopg2's ``connect`` is called with to reach ``url``."""
    _, arguments = _DIALECT.create_connect_args(make_url(url))
    return dict(arguments)


def check_url(url: str) -> None:
    """Raise SettingsError unless the driver can use ``url``. Its password is not repeated."""
    try:
        make_dsn(**connect_arguments(url))
    except psycopg2.Error as error:
        reason = str(error).strip().removeprefix("invalid dsn: ")
        raise SettingsError(f"Postgres' driver refuses the URL: {reason}") from None
    except (SQLAlchemyError, ValueError):  # they may quote what they could not read
        raise SettingsError("Postgres' driver cannot read the URL") from None


def check(settings: Settings) -> None:
    """Raise SettingsError, naming the variable, unless the driver can use the ledger's addresses."""
    for name in ("database_url", "database_direct_url"):
        if url := getattr(settings, name):
            try:
                check_url(url)
            except SettingsError as error:
                raise SettingsError(f"{PREFIX}{name.upper()}: {error}") from None
