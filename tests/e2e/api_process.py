"""The API as a process: gunicorn on a free port of loopback, as `make up` runs it."""

from __future__ import annotations

import requests

from chiffon.devstack import ports
from chiffon.devstack.process import Process
from tests.e2e.http_client import HttpClient
from tests.e2e.stack import StackUnderTest


class Apis:
    """Starts the APIs of one scenario."""

    def __init__(self, stack: StackUnderTest) -> None:
        self._stack = stack
        self._processes: list[Process] = []

    def start(self, **settings: object) -> HttpClient:
        """Start an API and return who speaks to it. ``settings``: by name without ``CHIFFON_``."""
        address = f"{ports.LOOPBACK}:{ports.free_port()}"
        url = f"http://{address}"
        process = self._stack.program(
            f"api-{len(self._processes)}",
            *("gunicorn", "--bind", address, "--no-control-socket"),  # the rest is in gunicorn.conf.py
            ready=lambda: requests.get(f"{url}/health/live", timeout=5).status_code == 200,
            **settings,
        )
        self._processes.append(process)
        process.start()
        return HttpClient(url, self._stack.api_key)

    def stop(self) -> None:
        """Stop them in order; `resume` starts them again at the same addresses."""
        for process in self._processes:
            process.stop()

    def kill(self) -> None:
        """End them with SIGKILL, with every process that serves; `resume` starts them again."""
        for process in self._processes:
            process.kill()

    def resume(self) -> None:
        """Start them again."""
        for process in self._processes:
            process.start()
