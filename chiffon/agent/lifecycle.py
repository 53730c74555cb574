"""What the worker's own signals set in motion: logs, and a refusal of pools that cannot keep the guarantees."""

from __future__ import annotations

import logging
from typing import Any

from celery import signals
from celery.exceptions import ImproperlyConfigured

from chiffon.config import settings
from chiffon.logs import configure

GREEN = ("gevent", "eventlet")


@signals.setup_logging.connect
def set_up_logging(loglevel: Any = None, **_: Any) -> None:
    """JSON lines, ours and Celery's; the wordier of ``CHIFFON_LOG_LEVEL`` and ``--loglevel`` counts."""
    ours = logging.getLevelNamesMapping()[settings().log_level]
    configure(settings(), level=min(ours, loglevel) if isinstance(loglevel, int) else ours)


@signals.celeryd_init.connect
def refuse_green_pools(instance: Any = None, conf: Any = None, **_: Any) -> None:
    """gevent and eventlet cannot kill a run that is over its limit, and psycopg2 blocks them."""
    pool = str(getattr(instance, "pool_cls", "") or "")
    if any(green in pool for green in GREEN):
        raise ImproperlyConfigured(
            f"the pool {pool!r} cannot stop a run, and Postgres' driver blocks it: use -P prefork, or -P threads"
        )
