"""What keeps Chiffon from working here: each check says that all is well, or what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import amqp

from chiffon.bus.connect import connect, version_of
from chiffon.bus.topology import DLX_QUEUE, Topology
from chiffon.config import Settings, SettingsError
from chiffon.dispatch.broker import asking
from chiffon.domain.discovery import import_workers
from chiffon.domain.errors import BrokerUnavailable, ChiffonError
from chiffon.domain.work import registry
from chiffon.ledger import address, migrate

PATIENCE = 5.0
"""Seconds that a broker has to answer."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's: what was looked at, whether it is well, and what was seen or is to be done."""

    subject: str
    is_well: bool
    note: str


def examine(environ: Mapping[str, str], version: tuple[int, ...] = sys.version_info[:2]) -> Iterator[Finding]:
    """Look at Python, settings, work, broker, queues, database and schema, in this order, and change nothing."""
    is_new_enough = version >= (3, 11)
    note = ".".join(map(str, version)) + ("" if is_new_enough else ": Chiffon needs 3.11 or newer")
    yield Finding("Python", is_new_enough, note)
    try:
        settings = Settings.from_environment(environ)
        address.check(settings)
    except SettingsError as error:
        yield Finding("settings", False, str(error))
        return
    yield Finding("settings", True, "every CHIFFON_* variable that is set can be used")
    yield _checked("work types", lambda: _look_at_work(settings))
    yield _checked("broker", lambda: _look_at_broker(settings))
    yield _checked("queues", lambda: _look_at_queues(settings))
    yield _checked("database", lambda: _look_at_database(settings))
    yield _checked("schema", lambda: _look_at_schema(settings))


def _checked(subject: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, True, look())
    except ChiffonError as error:
        return Finding(subject, False, str(error))


def _look_at_work(settings: Settings) -> str:
    try:
        import_workers(settings.workers)
    except ChiffonError:
        raise
    except Exception as error:  # the user's own modules, which may raise anything
        raise ChiffonError(f"{settings.workers} cannot be imported: {type(error).__name__}: {error}") from error
    return ", ".join(sorted(work_type.name for work_type in registry))


def _look_at_broker(settings: Settings) -> str:
    with connect(settings.broker_url, name="chiffon doctor", patience=PATIENCE) as connection:
        return "RabbitMQ " + ".".join(map(str, version_of(connection)))


def _look_at_queues(settings: Settings) -> str:
    topology = Topology(settings.queue_type, registry.queues)
    with asking(settings.broker_url, name="chiffon doctor", patience=PATIENCE) as connection:
        for name in (*topology.queue_names, DLX_QUEUE):
            try:
                connection.channel().queue_declare(name, passive=True)
            except amqp.NotFound:
                raise BrokerUnavailable(f"{name} is not there yet: an agent declares it when it starts") from None
        topology.declare(connection)  # all are there, so this only compares their arguments
    return ", ".join((*topology.queue_names, DLX_QUEUE))


def _look_at_database(settings: Settings) -> str:
    migrate.status(settings.direct_url)
    return "Postgres answers"


def _look_at_schema(settings: Settings) -> str:
    status = migrate.status(settings.direct_url)
    needs = f"at {status.current or 'nothing'}, and this version needs {status.head}"
    if status.is_behind:
        raise ChiffonError(f"{needs}: run `chiffon db upgrade`")
    return needs if status.is_ahead else f"at {status.current}"
