"""The library: by its name in the plan, what does a fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.chaos.faults import messages, network, processes
from tests.chaos.incidents import Note
from tests.chaos.plan import Fault
from tests.chaos.stand import Stand

Doing = Callable[[Stand, Fault, Note], None]


def library(rubbish: messages.Rubbish) -> Mapping[str, Doing]:
    """Every fault that the plan knows. Each returns when it is over, and everything is as before."""

    def garbage(stand: Stand, fault: Fault, note: Note) -> None:
        messages.throw_garbage(stand, rubbish, fault, note)

    def duplicates(stand: Stand, fault: Fault, note: Note) -> None:
        messages.double(stand, rubbish, fault, note)

    return {
        "agent_kill": processes.kill,
        "agent_stop": processes.stop_and_go_on,
        "agent_restart": processes.restart,
        "agent_hurry": processes.hurry,
        "child_kill": processes.kill_child,
        "api_kill": processes.kill,
        "api_restart": processes.restart,
        "api_stop": processes.stop_and_go_on,
        "broker_kill": processes.kill_broker,
        "broker_restart": processes.restart_broker,
        "broker_stop": processes.stop_broker,
        "broker_wipe": processes.wipe_broker,
        "broker_alarm": processes.alarm,
        "postgres_kill": processes.kill_postgres,
        "postgres_restart": processes.restart_postgres,
        "postgres_stop": processes.stop_postgres,
        "cut": network.cut,
        "refuse": network.refuse,
        "delay": network.delay,
        "silence": network.silence,
        "half_open": network.half_open,
        "swallow_commit": network.swallow_commit,
        "swallow_confirm": network.swallow_confirm,
        "garbage": garbage,
        "duplicates": duplicates,
    }
