"""Health: for probes, so it asks for no key."""

from __future__ import annotations

from apiflask import APIBlueprint

from chiffon.api import kinds
from chiffon.api.answers import Alive, Ready
from chiffon.api.contract import Operation, Reply, operation
from chiffon.api.parts import parts
from chiffon.dispatch.health import look_at_health

blueprint = APIBlueprint("health", __name__, tag={"name": "Health", "description": "For probes; no key needed."})


@blueprint.get("/health/live")
@operation(Operation(gives={200: (Alive, "It answers.")}, is_open=True))
def live() -> Reply:
    """Tell that the process answers."""
    return Reply(Alive())


@blueprint.get("/health/ready")
@operation(
    Operation(
        gives={200: (Ready, "Work is taken in: `ready`, or `degraded` while the broker is away.")},
        problems=kinds.OF_THE_LEDGER,
        is_open=True,
    )
)
def ready() -> Reply:
    """Tell whether work is taken in, and whether it moves."""
    here = parts()
    found = look_at_health(here.schema, here.broker, here.ringer)
    return Reply(
        Ready(
            status="ready" if found.problem is None else "degraded",
            broker=found.broker,
            ringer=found.ringer,
            detail=found.problem,
        )
    )
