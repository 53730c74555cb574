"""A run may call a chain of any length, and wait for one in a chord."""

from __future__ import annotations

from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.waiting import eventually
from tests.traps import DEEDS

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")

LONG = 60


def test_a_run_that_calls_a_long_chain_succeeds_and_the_chord_with_the_chain_goes_on(
    agents: Agents, desk: Desk
) -> None:
    agents.start(concurrency=2, **DEEDS)
    caller = desk.place("trap.send_chain", {"length": LONG})
    desk.wait_for(caller, "completed")
    _, body = desk.result(caller) or ("", "")
    eventually("the chord", lambda: desk.result(body), within=60)
    assert desk.result(body) == ("SUCCESS", {"output": [{"output": LONG - 1}, {"output": "beside"}]})
