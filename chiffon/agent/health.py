"""Whether an agent works, asked from outside: a hung one still looks alive to whoever counts processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from celery.utils.nodenames import default_nodename, host_format
from kombu.exceptions import OperationalError

from chiffon.agent.app import app
from chiffon.dispatch.find import find_agent
from chiffon.domain.errors import AgentNotFound, ChiffonError
from chiffon.ledger.connect import Ledger

PATIENCE = 5.0
"""Seconds that the broker has to answer, and then the agent."""


@dataclass(frozen=True)
class Sign:
    """What one witness says of an agent. ``lives``: None if it could not be asked, which is no fault of the agent's."""

    lives: bool | None
    said: str


def agent_called(name: str | None) -> str:
    """The id of the agent that `celery worker -n NAME` starts on this host; of the one without a name by default."""
    return str(host_format(default_nodename(name)))


def signs_of_life(agent_id: str) -> Iterator[Sign]:
    """Ask both witnesses.

    The heartbeat in the ledger shows that the agent can claim and settle, the answer over the broker that it takes
    messages: each goes on without the other.
    """
    yield _heartbeat(agent_id)
    yield _answer(agent_id)


def _heartbeat(agent_id: str) -> Sign:
    settings = app.settings
    ledger = Ledger(settings.database_url, pool_size=1)
    try:
        agent = find_agent(ledger, agent_id, offline_after=settings.offline_after)
    except AgentNotFound:
        return Sign(False, f"the ledger has never heard of {agent_id}")
    except ChiffonError as error:
        return Sign(None, str(error))
    finally:
        ledger.close()
    return Sign(agent.status != "offline", f"to the ledger {agent_id} is {agent.status}")


def _answer(agent_id: str) -> Sign:
    try:
        with app.connection_for_write(connect_timeout=PATIENCE) as connection:
            connection.ensure_connection(max_retries=1, interval_start=0)
            answers: list[Any] = app.control.ping([agent_id], PATIENCE, connection=connection, limit=1)
    except (OperationalError, OSError) as error:
        return Sign(None, f"RabbitMQ does not answer: {error}")
    return Sign(bool(answers), f"{agent_id} {'answers' if answers else 'does not answer'} over the broker")
