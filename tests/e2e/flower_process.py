"""Flower as a process, behind a password, and its API as a browser would reach it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import requests

from chiffon.devstack import ports
from tests.e2e.stack import StackUnderTest

LOGIN = ("chiffon", "a password for Flower")


@dataclass(frozen=True)
class Flower:
    """Flower at ``url``."""

    url: str

    def get(self, path: str, login: tuple[str, str] | None = LOGIN) -> requests.Response:
        """GET ``path``, with the password unless told otherwise."""
        return requests.get(self.url + path, auth=login, timeout=30)

    def show(self, path: str) -> Any:
        """GET JSON, which must be there."""
        answer = self.get(path)
        assert answer.status_code == 200, f"Flower answered {answer.status_code} for {path}: {answer.text}"
        return answer.json()


def start_flower(stack: StackUnderTest) -> Flower:
    """Start Flower as `celery -A chiffon flower`, on a free port of loopback."""
    port = ports.free_port()
    url = f"http://{ports.LOOPBACK}:{port}"
    process = stack.program(
        "flower",
        *("celery", "-A", "chiffon", "flower", f"--address={ports.LOOPBACK}", f"--port={port}"),
        ready=lambda: requests.get(f"{url}/healthcheck", timeout=5).status_code == 200,
        environment={"FLOWER_BASIC_AUTH": ":".join(LOGIN)},
    )
    process.start()
    return Flower(url)
