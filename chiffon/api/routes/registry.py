"""What can be done here, and who does it: work types and agents."""

from __future__ import annotations

from apiflask import APIBlueprint

from chiffon.api import kinds
from chiffon.api.answers import Agent, AgentList, WorkType, WorkTypeList
from chiffon.api.contract import Operation, Reply, operation
from chiffon.api.parts import parts
from chiffon.dispatch.find import agents_online, find_agent, find_agents
from chiffon.domain.work import registry

blueprint = APIBlueprint("registry", __name__, tag={"name": "Agents", "description": "What can be done, and by whom."})


@blueprint.get("/work-types")
@operation(Operation(gives={200: (WorkTypeList, "Every work type.")}, problems=kinds.OF_THE_LEDGER))
def work_types() -> Reply:
    """List the work types, with the JSON Schema of their parameters."""
    settings = parts().settings
    online = agents_online(parts().ledger, offline_after=settings.offline_after)
    return Reply(
        WorkTypeList(
            items=[
                WorkType(
                    name=known.name,
                    description=known.description,
                    parameters_schema=known.schema,
                    timeout_seconds=known.timeout or settings.default_timeout,
                    max_retries=known.retries,
                    queue=known.queue,
                    agents_online=online.get(known.name, 0),
                )
                for known in registry
            ]
        )
    )


@blueprint.get("/agents")
@operation(Operation(gives={200: (AgentList, "Every agent that is not forgotten.")}, problems=kinds.OF_THE_LEDGER))
def agents() -> Reply:
    """List the agents, each in its newest life."""
    found = find_agents(parts().ledger, offline_after=parts().settings.offline_after)
    return Reply(AgentList(items=[Agent.model_validate(agent) for agent in found]))


@blueprint.get("/agents/<agent_id>")
@operation(Operation(gives={200: (Agent, "The agent.")}, problems=(kinds.AGENT_NOT_FOUND, *kinds.OF_THE_LEDGER)))
def agent(agent_id: str) -> Reply:
    """Show an agent in its newest life."""
    return Reply(
        Agent.model_validate(find_agent(parts().ledger, agent_id, offline_after=parts().settings.offline_after))
    )
