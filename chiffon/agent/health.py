"""Whether an agent works, asked from outside: a hung one still looks alive to whoever counts processes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from celery.utils.nodenames import default_nodename, host_format
from kombu.exceptions import OperationalError

from chiffon.agent.app import app
from chiffon.bus.confirms import BLOCKED
from chiffon.dispatch.find import find_agent
from chiffon.dispatch.health import require_takes_writes
from chiffon.domain.errors import AgentNotFound, ChiffonError
from chiffon.ledger.connect import Ledger

PATIENCE = 5.0
"""Seconds that the broker has to answer, and then the agent."""

LIMIT = 20.0
"""Seconds after which it is over for whoever has not answered, whatever keeps them."""


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
        require_takes_writes(ledger)  # else it is no fault of the agent's that its heartbeat is old
        agent = find_agent(ledger, agent_id, offline_after=settings.offline_after)
    except AgentNotFound:
        return Sign(False, f"the ledger has never heard of {agent_id}")
    except ChiffonError as error:
        return Sign(None, str(error))
    finally:
        ledger.close()
    return Sign(agent.status != "offline", f"to the ledger {agent_id} is {agent.status}")


def _answer(agent_id: str) -> Sign:
    """Ask the agent over the broker; a broker that neither answers nor breaks off is not waited for."""
    signs: list[Sign] = []
    asking = threading.Thread(target=lambda: signs.append(_asked(agent_id)), daemon=True)
    asking.start()
    asking.join(LIMIT)
    return signs[0] if signs else Sign(None, f"RabbitMQ has said nothing for {LIMIT:g} s")


def _asked(agent_id: str) -> Sign:
    blocked: list[str] = []
    connection = app.connection_for_write(
        connect_timeout=PATIENCE,
        # A broker under an alarm takes no message, and confirms none. That it says, to whoever has sent it one.
        transport_options={
            "confirm_publish": False,
            "read_timeout": 2 * PATIENCE,
            "write_timeout": PATIENCE,
            "on_blocked": blocked.append,
        },
    )
    try:
        connection.ensure_connection(max_retries=1, interval_start=0)
        answers = _mailbox(connection).call([agent_id], "ping", timeout=PATIENCE)
    except (OperationalError, OSError) as error:
        connection.collect()  # a goodbye would wait for the broker
        return Sign(None, BLOCKED if blocked else f"RabbitMQ does not answer: {error}")
    if blocked:
        connection.collect()
        return Sign(None, BLOCKED)
    connection.release()
    return Sign(bool(answers), f"{agent_id} {'answers' if answers else 'does not answer'} over the broker")


def _mailbox(connection: Any) -> Any:
    """Remote control over this connection; Celery's own asks over others, which wait for the broker's confirm."""
    mailbox = app.control.mailbox(connection)
    mailbox._producer_pool = None
    return mailbox
