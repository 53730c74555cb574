"""What follows from an end may grow beyond any message: whoever waits for it hears why it is not run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import chain, chord

from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.canvas_client import WORK, CanvasClient
from tests.e2e.diary import Diary
from tests.e2e.nodes import BrokerNode, LedgerNode
from tests.e2e.waiting import eventually
from tests.traps import DEEDS

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")

LIMIT = 10_000
"""Bytes of a message, for the agents here."""

REASON = rf"its body would have \d+ bytes, more than CHIFFON_MAX_MESSAGE \({LIMIT}\)"


@pytest.fixture
def canvas(celery_broker: BrokerNode, celery_backend: LedgerNode, tmp_path: Path) -> Iterator[CanvasClient]:
    """A client of Celery's canvas."""
    found = CanvasClient(celery_broker.url, celery_backend.url, Diary(tmp_path / "diary"))
    yield found
    found.close()


def test_the_body_of_a_chord_whose_results_are_too_large_together_fails_with_the_reason(
    agents: Agents, desk: Desk, canvas: CanvasClient
) -> None:
    agents.start(max_message=LIMIT, **DEEDS)
    part = canvas.app.signature("trap.spread", args=(LIMIT // 2,), options=WORK)
    told = canvas.append("told").set(task_id="errback-of-the-body")
    body = chord([part, part, part])(canvas.app.signature("echo", options=WORK).on_error(told))
    with pytest.raises(Exception, match=REASON):
        body.get(timeout=30)
    eventually("the body's errback", lambda: desk.status("errback-of-the-body") == "completed")
    assert desk.status(body.id) == "dead_lettered"


def test_a_step_whose_parameters_are_too_large_is_dead_lettered_and_the_rest_of_the_chain_hears_why(
    agents: Agents, desk: Desk, canvas: CanvasClient
) -> None:
    agents.start(max_message=LIMIT, **DEEDS)
    echo = canvas.app.signature("echo", options=WORK)
    last = chain(canvas.app.signature("trap.spread", args=(LIMIT,), options=WORK), echo, echo).apply_async()
    with pytest.raises(Exception, match=REASON):
        last.get(timeout=30)
    assert desk.status(last.parent.parent.id) == "completed"
    row = desk.wait_for(last.parent.id, "dead_lettered")
    assert "more than CHIFFON_MAX_MESSAGE" in row["error"]["message"]


def test_what_is_run_again_may_be_larger_than_a_message_as_it_may_be_when_it_is_dispatched(
    agents: Agents, desk: Desk
) -> None:
    agents.start(max_message=LIMIT, **DEEDS)
    retried = desk.place("trap.same_at_second_attempt", {"said": "x" * 2 * LIMIT})
    desk.wait_for(retried, "completed")
    assert len(desk.outcomes(retried)) == 2
