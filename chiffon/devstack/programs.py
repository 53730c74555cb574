"""What runs on top of the services: the API, the agents and Flower, as processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from chiffon.devstack import unproxied
from chiffon.devstack.process import Process

AGENTS = ("agent1", "agent2")


@dataclass(frozen=True)
class Access:
    """How to reach a stack that is up. Its fields are what `.chiffon/env` holds."""

    api_url: str
    api_key: str
    broker_url: str
    database_url: str
    flower_url: str
    flower_auth: str
    """user:password"""

    def variables(self) -> dict[str, str]:
        """Return the fields as environment variables."""
        return {f"CHIFFON_{name.upper()}": value for name, value in vars(self).items()}

    @property
    def headers(self) -> dict[str, str]:
        """What a request to the API must carry."""
        return {"Authorization": f"Bearer {self.api_key}"}


def describe(access: Access, settings: Mapping[str, str], *, folder: Path, stack: str) -> list[Process]:
    """Return the programs of one stack, none of them started, with their logs in ``folder``.

    Secrets are handed over in the environment, for every user can read a command line. The agents carry the
    name of the ``stack``: two agents of one name on one broker disturb each other.
    """

    def program(name: str, command: tuple[str, ...], ready: Callable[[], bool]) -> Process:
        return Process(
            name,
            [sys.executable, "-m", *command],
            log=folder / f"{name.lower()}.log",
            environment=settings,
            ready=ready,
            stop_timeout=10,
        )

    def agent(name: str) -> Process:
        node = f"{name}-{stack}"
        return program(name, _worker(node), lambda: _is_online(access, node))

    api = program("API", _gunicorn(access), lambda: _answers_ok(f"{access.api_url}/health/live"))
    flower = program("Flower", _flower(access), lambda: _answers_ok(f"{access.flower_url}/healthcheck"))
    return [api, *map(agent, AGENTS), flower]


def flower_settings(access: Access, management_url: str) -> dict[str, str]:
    """Return the variables from which Flower takes its password, and the broker's management API if there is one."""
    settings = {"FLOWER_BASIC_AUTH": access.flower_auth}
    if management_url:
        settings["FLOWER_BROKER_API"] = f"{management_url}/api/"
    return settings


def _gunicorn(access: Access) -> tuple[str, ...]:
    return (
        *("gunicorn", "wsgi:app", "--bind", urlsplit(access.api_url).netloc),
        *("--workers", "2", "--worker-class", "chiffon.api.serving.StayingWorker"),
        *("--threads", "16"),  # a waiter (`Prefer: wait`) holds one
        *("--graceful-timeout", "5", "--no-control-socket"),  # the socket's path is one a user, not one a stack
    )


def _worker(node: str) -> tuple[str, ...]:
    return ("celery", "-A", "chiffon", "worker", "-n", f"{node}@%h", "--concurrency", "2", "--loglevel", "INFO")


def _flower(access: Access) -> tuple[str, ...]:
    url = urlsplit(access.flower_url)
    return ("celery", "-A", "chiffon", "flower", f"--address={url.hostname}", f"--port={url.port}")


def _answers_ok(url: str) -> bool:
    return unproxied.session().get(url, timeout=5).status_code == 200


def _is_online(access: Access, node: str) -> bool:
    answer = unproxied.session().get(f"{access.api_url}/agents", headers=access.headers, timeout=5)
    if answer.status_code != 200:
        return False
    return any(
        agent["agent_id"].startswith(f"{node}@") and agent["status"] in {"online", "busy"}
        for agent in answer.json()["items"]
    )
