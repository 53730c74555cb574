"""Metrics: for a monitoring system that comes by every moment or so."""

from __future__ import annotations

from apiflask import APIBlueprint
from flask import request

from chiffon.api.contract import Operation, Text, operation
from chiffon.api.exposition import written
from chiffon.api.parts import parts
from chiffon.dispatch.measure import measure
from chiffon.domain.work import registry

blueprint = APIBlueprint("metrics", __name__, tag={"name": "Metrics", "description": "For Prometheus and its like."})


@blueprint.get("/metrics")
@operation(
    Operation(
        gives={200: (str, "Prometheus' text format, or OpenMetrics if that is accepted.")},
        media_types=("text/plain", "application/openmetrics-text"),
    )
)
def metrics() -> Text:
    """Show what waits, runs and has just ended, and who is there to do it.

    While Postgres does not answer, `chiffon_ledger_up` is 0, and nothing else is told. If it answers, but cannot count
    all this in time, that is 1, and nothing else is told either.
    """
    here = parts()
    found = measure(here.any_ledger, here.settings, registry)
    return Text(*written(found, request.headers.get("Accept", "")))
