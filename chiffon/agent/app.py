"""The Celery application that `celery -A chiffon` finds."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

from celery import Celery
from kombu.entity import Exchange

from chiffon.agent import aftermath, consuming, lifecycle, revoking  # noqa: F401  -- they connect themselves
from chiffon.agent.amqp import LedgerAMQP
from chiffon.agent.announcing import LedgerEvents
from chiffon.agent.answering import LedgerControl
from chiffon.agent.task import LedgerTask, as_celery_task, with_end_caught
from chiffon.bus.topology import WORK_EXCHANGE, Topology
from chiffon.config import Settings, settings
from chiffon.domain.discovery import import_workers
from chiffon.domain.work import DEFAULT_QUEUE, registry
from chiffon.ledger import address

CONFIGURATION = "celeryconfig"
"""The user's own module of Celery settings, if there is one on the path."""


class ChiffonCelery(Celery):
    """A Celery application whose tasks live in the ledger."""

    amqp_cls = LedgerAMQP
    control_cls = LedgerControl
    events_cls = LedgerEvents
    task_cls = LedgerTask
    settings: Settings

    def register_task(self, task: Any, **options: Any) -> Any:
        """As Celery's; a task, or its class, of whatever base."""
        if isinstance(task, type):
            return super().register_task(with_end_caught(task), **options)
        task.__class__ = with_end_caught(type(task))
        return super().register_task(task, **options)

    def _task_from_fun(self, fun: Any, name: str | None = None, base: Any = None, **options: Any) -> Any:
        return super()._task_from_fun(fun, name=name, base=with_end_caught(base), **options)


def create_app(chosen: Settings | None = None) -> ChiffonCelery:
    """The application: the user's settings, then those that the guarantees need, then every work type as a task.

    Raises:
        SettingsError: the environment does not describe a Chiffon, or Postgres' driver cannot use the ledger's address.
        WorkersNotFound: the package that holds the work is not on the path.
    """
    chosen = chosen or settings()
    address.check(chosen)
    if "" not in sys.path and (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)  # Celery's command line takes it away again before it asks for the application
    application = ChiffonCelery("chiffon")
    application.settings = chosen
    if importlib.util.find_spec(CONFIGURATION) is not None:
        application.config_from_object(CONFIGURATION)
    import_workers(chosen.workers)
    application.conf.update(required(chosen, registry.queues))
    for work_type in registry:
        application.register_task(as_celery_task(work_type, chosen))
    for task in aftermath.tasks():
        application.register_task(task)
    application.set_default()
    return application


def required(chosen: Settings, queues: tuple[str, ...]) -> dict[str, Any]:
    """The Celery settings that the guarantees need, whatever `celeryconfig` says."""
    return {
        "broker_url": chosen.broker_url,
        "result_backend": f"chiffon.agent.ledger_backend:LedgerBackend+{chosen.database_url}",
        "worker_consumer": "chiffon.agent.consumer:LedgerConsumer",
        **_routing(Topology(chosen.queue_type, queues)),
        # A message is acknowledged when its task is settled, and by nobody else.
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        "task_reject_on_worker_lost": False,
        # JSON only: a pickled message is code.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_protocol": 2,
        # A publish that the broker has not confirmed did not happen.
        "broker_transport_options": {"confirm_publish": True, "client_properties": {"connection_name": "chiffon"}},
        # A connection that is dead but not closed is noticed within twice this time, in seconds.
        "broker_heartbeat": 20,
        # An agent waits for its broker as long as it takes.
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
        # Running work goes on when the broker's connection drops: the ledger says whose it is.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        # The ledger knows what has begun, and what has ended.
        "task_track_started": False,
        "worker_deduplicate_successful_tasks": False,
        # The processes of the pool have the application, the work and the slates from the agent itself.
        "worker_pool_start_method": "fork",
        "worker_hijack_root_logger": False,
        "enable_utc": True,
        "task_always_eager": False,
    }


def _routing(topology: Topology) -> dict[str, Any]:
    """The topology is declared from one place, on every connect; here the queues are only consumed from."""
    return {
        "task_queues": topology.work_queues(no_declare=True),
        "task_default_queue": DEFAULT_QUEUE,
        "task_default_exchange": WORK_EXCHANGE,
        "task_default_routing_key": DEFAULT_QUEUE,
        "task_create_missing_queues": False,
        "task_routes": {w.name: _route(w.queue) for w in registry},
        "task_default_priority": 3,
    }


def _route(queue: str) -> dict[str, Any]:
    return {"exchange": Exchange(WORK_EXCHANGE, no_declare=True), "routing_key": queue}


app = create_app()
