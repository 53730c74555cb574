"""Three RabbitMQ nodes as processes of this machine that make one cluster."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

from chiffon.devstack.rabbitmq import PrivateRabbitMQ


class ClusterNode(PrivateRabbitMQ):
    """A private node that shares its cookie, its port mapper and its password with ``leader``, and can join it."""

    def __init__(self, folder: Path, leader: PrivateRabbitMQ) -> None:
        folder.mkdir()
        self._leader = leader
        super().__init__(folder)
        self._epmd = leader._epmd

    @property
    def name(self) -> str:
        """What Erlang calls it."""
        return self._environment["RABBITMQ_NODENAME"]

    def join(self) -> None:
        """Become one with the leader, without anything that was known here before."""
        self.ctl("stop_app")
        self.ctl("join_cluster", self._leader._environment["RABBITMQ_NODENAME"])
        self.ctl("start_app")

    def _describe(self, config: str) -> dict[str, str]:
        shared = ("HOME", "ERL_EPMD_PORT")
        leaders = self._leader._environment
        self._epmd_port = self._leader._epmd_port
        self._password = self._leader._password
        return super()._describe(config) | {name: leaders[name] for name in shared}


class BrokerCluster:
    """The nodes, as a context manager. ``folder`` takes what each keeps."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        leader = PrivateRabbitMQ(folder / "one")
        self.nodes: list[PrivateRabbitMQ] = [leader]
        self._followers = [ClusterNode(folder / name, leader) for name in ("two", "three")]
        self.nodes += self._followers
        self._open = contextlib.ExitStack()

    @property
    def url(self) -> str:
        """All of them, to be tried in turn."""
        return ";".join(node.url for node in self.nodes)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opening:
            leader = self.nodes[0]
            opening.callback(leader.stop)
            for node in self.nodes:
                node.launch()
                opening.callback(node.kill)
            for node in self.nodes:
                node.wait_until_ready()
            for node in self._followers:
                node.join()
                node.wait_until_ready()
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()
