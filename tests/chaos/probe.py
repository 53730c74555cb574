"""At rest, with nothing else wrong: agents are killed under their work, to tell how soon others go on with it."""

from __future__ import annotations

from tests.chaos.audit.takeovers import PROBE
from tests.chaos.clients import Api
from tests.chaos.faults.processes import kill
from tests.chaos.plan import Fault, Order
from tests.chaos.promises import Promises
from tests.chaos.stand import Stand
from tests.e2e.waiting import eventually

KILLS = 3

_DEAD_FOR = 6.0
"""Seconds until the agent is back: longer than its work may wait for another."""

_HOLDER = """
SELECT agent_id FROM tasks WHERE task_id = %s AND status = 'running' AND started_at IS NOT NULL
"""


def probe(stand: Stand, promises: Promises) -> None:
    """Kill an agent under its work, some times. What cannot be done is a surprise."""
    for number in range(KILLS):
        try:
            _kill_one(stand, promises, Order(f"probe-{stand.name}-{number}", "chaos.note", {"seconds": 3.0}))
        except AssertionError as error:
            promises.surprises.append(f"probe {number}: {error}")


def _kill_one(stand: Stand, promises: Promises, order: Order) -> None:
    body = {"work_type": order.work_type, "parameters": order.parameters, "request_id": order.request_id}
    answer, asked = Api(stand, promises).insist("/dispatch", body)
    assert answer is not None, "the API does not answer"
    task_id = answer.json()["task_id"]
    promises.accept(task_id, order, duplicate=False, asked=asked)
    (holder,) = eventually("an agent to be at work", lambda: stand.ledger.rows(_HOLDER, task_id))
    fault = Fault(0.0, "agent_kill", holder["agent_id"].partition("@")[0], _DEAD_FOR, PROBE, 0.0)
    with stand.hold(fault), stand.incidents.during(fault.kind, fault.target, fault.detail) as note:
        kill(stand, fault, note)
    eventually("every agent to consume", stand.all_consume, within=60)
