"""Who sends with Celery's client as the page says hears of it when no queue takes the message."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import amqp
import pytest
from celery import Celery, chord, group

from chiffon.bus.connect import connect
from chiffon.bus.topology import Topology
from tests.compose import REPOSITORY
from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.nodes import BrokerNode

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")

PATIENCE = 30
PAGES = pytest.mark.parametrize("page", ["README.md", "docs/celery.md"])


def to_agents(page: str, **others: Any) -> dict[str, Any]:
    """How a page says that messages go to agents."""
    [said] = re.findall(r"^to_agents = (.+)$", (REPOSITORY / page).read_text(), re.MULTILINE)
    return {**ast.literal_eval(said), **others}


@pytest.fixture
def client(celery_broker: BrokerNode, desk: Desk) -> Iterator[Celery]:
    """A client as the page makes one."""
    found = Celery("client", broker=celery_broker.url, backend=f"chiffon+{desk.url}", set_as_current=False)
    found.conf.broker_transport_options = {"confirm_publish": True}
    with connect(celery_broker.url, name="test") as connection:
        Topology("classic").declare(connection)
    yield found
    found.backend.listener.linger = 0
    found.close()


@PAGES
def test_what_no_queue_takes_is_an_error_of_its_sender(client: Celery, page: str) -> None:
    with pytest.raises(amqp.ChannelError, match="NO_ROUTE") as returned:
        client.send_task("echo", kwargs={"input": 1}, **to_agents(page, routing_key="work_queue.nobody"))
    assert returned.value.reply_code == 312
    assert client.send_task("echo", kwargs={"input": 1}, **to_agents(page)).id, "and no error of the next one"


@PAGES
def test_all_of_a_canvas_goes_to_agents_by_the_same_options(client: Celery, agents: Agents, page: str) -> None:
    agents.start()

    def echo(*arguments: Any) -> Any:
        return client.signature("echo", args=arguments, options=to_agents(page))

    assert (echo(1) | echo()).apply_async().get(timeout=PATIENCE) == {"output": {"output": 1}}
    assert group(echo(1), echo(2)).apply_async().get(timeout=PATIENCE) == [{"output": 1}, {"output": 2}]
    assert chord([echo(1), echo(2)], echo()).apply_async().get(timeout=PATIENCE)
