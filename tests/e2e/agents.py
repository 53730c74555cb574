"""Agents as processes: `celery -A chiffon worker`, each a node of pytest-celery."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chiffon.devstack.process import Process
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.nodes import AgentContainer, AgentNode
from tests.e2e.stack import REPOSITORY, StackUnderTest


class Agents:
    """Starts the agents of one scenario, and ends them all."""

    def __init__(self, stack: StackUnderTest, pool: str) -> None:
        self._stack = stack
        self._pool = pool
        self._nodes: list[AgentNode] = []

    def start(self, name: str = "agent", **options: Any) -> AgentNode:
        """Start an agent and return when it is registered and consumes. ``options`` as for `launch`."""
        node = self.launch(name, **options)
        node.ready()
        return node

    def start_team(self, *names: str, **options: Any) -> list[AgentNode]:
        """Start several agents at once, alike, and return when all of them consume."""
        team = [self.launch(name, **options) for name in names]
        for node in team:
            node.ready()
        return team

    def launch(
        self,
        name: str = "agent",
        *,
        concurrency: int = 1,
        queues: str = "",
        pool: str = "",
        options: Sequence[str] = (),
        folder: Path = REPOSITORY,
        **settings: object,
    ) -> AgentNode:
        """Start an agent, without waiting until it is `ready`.

        Args:
            name: of this agent in its stack; the same name again is a new life of it.
            concurrency: how many tasks it does at once.
            queues: as Celery's ``-Q``; all of them by default.
            pool: as Celery's ``-P``; the session's by default.
            options: others of Celery's, as they are written.
            folder: in which it runs, with a `celeryconfig` of its own perhaps.
            settings: by name without ``CHIFFON_``, instead of the stack's.
        """
        agent_id = f"{name}@{self._stack.name}"
        process = self._stack.program(
            f"{name}-{len(self._nodes)}",
            *("celery", "-A", "chiffon", "worker", "-n", agent_id, "-P", pool or self._pool, "-c", str(concurrency)),
            *(("-Q", queues) if queues else ()),
            *options,
            ready=lambda: self._works(agent_id, process),
            folder=folder,
            **settings,
        )
        process.launch()
        node = AgentNode(AgentContainer(agent_id, process, queues), None)
        self._nodes.append(node)
        return node

    def teardown(self) -> None:
        """End them."""
        for node in self._nodes:
            node.teardown()

    def _works(self, agent_id: str, process: Process) -> bool:
        consumes = f"{agent_id} ready." in process.log.read_text(errors="replace")
        return consumes and LedgerReader(self._stack.ledger_url).living(agent_id, process.pid)
