"""What the worker's own signals set in motion: logs, and refusals of what cannot keep the guarantees."""

from __future__ import annotations

import logging
from typing import Any

from celery import signals
from celery.utils.text import str_to_list

from chiffon.config import settings
from chiffon.domain.errors import LedgerUnavailable, SchemaBehind
from chiffon.domain.work import registry
from chiffon.garbage import spare_what_stays
from chiffon.ledger import migrate
from chiffon.ledger.connect import Ledger
from chiffon.logs import configure

GREEN = ("gevent", "eventlet")


@signals.setup_logging.connect
def set_up_logging(loglevel: Any = None, **_: Any) -> None:
    """JSON lines, ours and Celery's; the wordier of ``CHIFFON_LOG_LEVEL`` and ``--loglevel`` counts."""
    ours = logging.getLevelNamesMapping()[settings().log_level]
    configure(settings(), level=min(ours, loglevel) if isinstance(loglevel, int) else ours)


# Celery logs what a receiver raises, and goes on; but for SystemExit.


@signals.celeryd_init.connect
def refuse_green_pools(conf: Any, options: dict[str, Any], **_: Any) -> None:
    """gevent and eventlet cannot kill a run that is over its limit, and psycopg2 blocks them."""
    pool = str(options.get("pool_cls") or options.get("pool") or conf.worker_pool)
    if any(green in pool for green in GREEN):
        raise SystemExit(
            "chiffon: this pool cannot stop a run that is over its limit, and Postgres' driver blocks it: "
            "use -P prefork, or -P threads"
        )


@signals.celeryd_init.connect
def refuse_unknown_queues(options: dict[str, Any], **_: Any) -> None:
    """An agent consumes what some work type asks for, and nothing else is declared. (Celery says so in tracebacks.)"""
    asked = [*str_to_list(options.get("queues") or ()), *str_to_list(options.get("exclude_queues") or ())]
    if unknown := [name for name in asked if name not in registry.queues]:
        known = ", ".join(registry.queues)
        raise SystemExit(f"chiffon: no work type asks for the queue {unknown[0]!r}; there are: {known}")


@signals.celeryd_init.connect
def refuse_an_older_schema(**_: Any) -> None:
    """An agent that does not know the ledger's tables must not write to them. One that cannot reach them waits."""
    ledger = Ledger(settings().database_url, pool_size=1)
    try:
        with ledger.transaction() as cursor:
            migrate.require_current(cursor)
    except SchemaBehind as error:
        raise SystemExit(f"chiffon: {error}") from None
    except LedgerUnavailable as error:
        logging.getLogger(__name__).warning("the ledger does not answer yet: %s", error)
    finally:
        ledger.close()


@signals.worker_init.connect
@signals.worker_ready.connect
def spare(**_: Any) -> None:
    """In the processes of the pool, too, which share these pages until somebody writes on them."""
    spare_what_stays()
