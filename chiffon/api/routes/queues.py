"""Queues: what waits where."""

from __future__ import annotations

from apiflask import APIBlueprint

from chiffon.api import kinds
from chiffon.api.answers import Queue, QueueList
from chiffon.api.contract import Operation, Reply, operation
from chiffon.api.parts import parts
from chiffon.dispatch.queues import look_at_queues
from chiffon.domain.work import registry

blueprint = APIBlueprint("queues", __name__, tag={"name": "Queues", "description": "What waits where."})


@blueprint.get("/queues")
@operation(Operation(gives={200: (QueueList, "Every queue.")}, problems=kinds.OF_THE_LEDGER))
def queues() -> Reply:
    """Show the depth of every queue, from the broker and from the ledger.

    While the broker is away its figures are null, and `broker_problem` says why.
    """
    found = look_at_queues(parts().ledger, parts().settings, registry.queues)
    return Reply(
        QueueList(items=[Queue.model_validate(queue) for queue in found.queues], broker_problem=found.broker_problem)
    )
