"""The measures in the words of Prometheus, whose library writes them down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.exposition import choose_encoder

from chiffon.dispatch.measure import Measures
from chiffon.dispatch.queues import QueueState
from chiffon.domain.views import LedgerFigures

AGENT_STATES = ("online", "busy", "draining", "offline")

_OF_QUEUES = (
    ("waiting_tasks", "Tasks that wait for an agent, as the ledger knows.", "waiting"),
    ("running_tasks", "Tasks that run.", "running"),
    ("oldest_task_age_seconds", "For how long one of those has waited, at most.", "oldest_age_seconds"),
    ("ready_messages", "Messages that wait, as the broker knows.", "ready"),
    ("consumers", "Agents that the broker hands messages of it to.", "consumers"),
)


def written(measures: Measures, accept: str) -> tuple[bytes, str]:
    """The measures as text, and its media type: what ``accept`` (a header) asks for."""
    try:
        encode, media_type = choose_encoder(accept)
    except TypeError:  # it compares versions as numbers, whatever they are
        encode, media_type = choose_encoder("")
    return encode(_Collected(measures)), media_type


class _Collected:
    """What the library calls a registry."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures

    def collect(self) -> Iterator[Any]:
        measures = self._measures
        yield Gauge("chiffon_ledger_up", "Whether Postgres answers.", value=measures.ledger_answers)
        if not measures.ledger_answers or measures.figures is None:
            return
        yield Gauge("chiffon_broker_up", "Whether RabbitMQ answers.", value=measures.broker_answers)
        yield from _of_queues(measures.queues)
        yield from _of_agents(agent.status for agent in measures.agents)
        yield from _of_the_ledger(measures.figures)


def _of_queues(queues: Iterable[QueueState]) -> Iterator[Any]:
    for name, meaning, member in _OF_QUEUES:
        gauge = Gauge(f"chiffon_queue_{name}", meaning, labels=["queue"])
        for queue in queues:
            if (value := getattr(queue, member)) is not None:
                gauge.add_metric([queue.queue], value)
        yield gauge


def _of_agents(statuses: Iterable[str]) -> Iterator[Any]:
    gauge, found = Gauge("chiffon_agents", "Agents, each in its newest life.", labels=["status"]), Counter(statuses)
    for status in AGENT_STATES:
        gauge.add_metric([status], found[status])
    yield gauge


def _of_the_ledger(figures: LedgerFigures) -> Iterator[Any]:
    later = Gauge("chiffon_delayed_tasks", "Tasks that wait for their time.", labels=["status"])
    for status, many in figures.delayed.items():
        later.add_metric([status], many)
    yield later
    yield Gauge("chiffon_owed_dead_letters", "Dead letters that the broker does not have yet.", value=figures.owed)
    ended = Gauge("chiffon_ended_tasks", "Tasks that have ended in the last minute.", labels=["work_type", "status"])
    took = Gauge(
        "chiffon_run_seconds",
        "How long the runs took by which tasks have ended in the last minute.",
        labels=["work_type", "status", "quantile"],
    )
    for recent in figures.recent:
        ended.add_metric([recent.work_type, recent.status], recent.many)
        for quantile, seconds in recent.run_seconds.items():
            took.add_metric([recent.work_type, recent.status, str(quantile)], seconds)
    yield ended
    yield took
