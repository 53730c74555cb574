"""What a request can reach: the settings, the ledger, the ringer and the rest, made once for each application."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import Flask, current_app

from chiffon.api.streams import Streams
from chiffon.config import Settings
from chiffon.dispatch.health import BrokerProbe, SchemaGuard
from chiffon.dispatch.ring import Ringer
from chiffon.dispatch.wait import Waiter
from chiffon.dispatch.watch import Watcher
from chiffon.ledger.connect import Ledger

_NAME = "chiffon"


@dataclass(frozen=True)
class Parts:
    """All of it may be shared between threads, and after a fork."""

    settings: Settings
    any_ledger: Ledger
    ringer: Ringer
    waiter: Waiter
    watcher: Watcher
    streams: Streams
    schema: SchemaGuard
    broker: BrokerProbe

    @property
    def ledger(self) -> Ledger:
        """The ledger, its schema found current. Raises SchemaBehind, LedgerUnavailable."""
        self.schema.check()
        return self.any_ledger


def install(app: Flask, made: Parts) -> None:
    """Let the views of ``app`` reach ``made``."""
    app.extensions[_NAME] = made


def parts() -> Parts:
    """Those of the application that serves this request."""
    return cast(Parts, current_app.extensions[_NAME])
