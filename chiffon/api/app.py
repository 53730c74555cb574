"""The application: made by a function, so that nothing happens at import."""

from __future__ import annotations

from importlib.metadata import version

from apiflask import APIFlask
from flask import Response
from flask_sqlalchemy import SQLAlchemy

from chiffon import config
from chiffon.api import keys, listening, openapi, pages, parts, prefix, problems, request_log
from chiffon.api.routes import dead_letters, dispatch, events, health, metrics, queues, registry, tasks
from chiffon.api.streams import Streams
from chiffon.config import Settings
from chiffon.dispatch.health import BrokerProbe, SchemaGuard
from chiffon.dispatch.ring import Ringer
from chiffon.dispatch.wait import Waiter
from chiffon.dispatch.watch import Watcher
from chiffon.domain.discovery import import_workers
from chiffon.domain.work import registry as work_types
from chiffon.ledger import address
from chiffon.ledger.connect import Ledger, engine_options
from chiffon.ledger.schema import metadata

_CONNECTIONS = 10
"""Kept open to Postgres by one process; as many again when it is busy."""


def create_app(settings: Settings | None = None) -> APIFlask:
    """The API as a WSGI application.

    Args:
        settings: default: the environment's.

    Raises:
        SettingsError: the environment describes none, or Postgres' driver cannot use the ledger's address.
        OpenToAll: the `flask run` that loads it would serve more than this machine, and there are no keys.
        WorkersNotFound: there is no package that ``CHIFFON_WORKERS`` names.
    """
    settings = settings or config.settings()
    address.check(settings)
    listening.check_flask_run(settings)
    import_workers(settings.workers)
    app = APIFlask(
        "chiffon.api",
        title="Chiffon",
        version=version("chiffon"),
        docs_path=None,
        json_errors=False,
        static_folder=None,  # type: ignore[arg-type]
    )
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    request_log.install(app)
    keys.install(app, settings.api_keys)
    problems.install(app)
    parts.install(app, _parts(app, settings))
    for room in (dispatch, tasks, events, registry, queues, dead_letters, health, metrics):
        app.register_blueprint(room.blueprint)
    app.register_blueprint(pages.blueprint)
    openapi.install(app, needs_key=bool(settings.api_keys))
    app.after_request(_keep_to_yourself)
    app.wsgi_app = prefix.PrefixAlias(app.wsgi_app)  # type: ignore[method-assign]
    return app


def _parts(app: APIFlask, settings: Settings) -> parts.Parts:
    app.config["SQLALCHEMY_DATABASE_URI"] = settings.database_url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = engine_options(_CONNECTIONS)
    db = SQLAlchemy(app, metadata=metadata)
    with app.app_context():
        ledger = Ledger(settings.database_url, pool_size=_CONNECTIONS, engine=db.engine)
    return parts.Parts(
        settings=settings,
        any_ledger=ledger,
        ringer=Ringer(settings, ledger, work_types.queues, name="api"),
        waiter=Waiter(ledger, settings.direct_url),
        watcher=Watcher(ledger, settings.direct_url),
        streams=Streams(settings.streams),
        schema=SchemaGuard(ledger),
        broker=BrokerProbe(settings.broker_url),
    )


def _keep_to_yourself(response: Response) -> Response:
    """Answers are true for a moment, and for whoever asked."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
