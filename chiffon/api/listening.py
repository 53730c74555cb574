"""Where the API may listen: without keys on this machine only, and it says so before it does."""

from __future__ import annotations

from collections.abc import Iterable

import click

from chiffon.api.keys import is_loopback
from chiffon.config import Settings


class OpenToAll(click.UsageError):
    """Without keys the API would do anybody's work."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"refusing to listen on {host} without keys, for anybody there could have any work done: "
            "set CHIFFON_API_KEYS, or listen on 127.0.0.1"
        )


def check_addresses(settings: Settings, hosts: Iterable[str]) -> None:
    """Raise OpenToAll if keys are missing and one of ``hosts`` can be reached from elsewhere."""
    for host in hosts:
        if not settings.api_keys and not is_loopback(host):
            raise OpenToAll(host or "every address")


def check_flask_run(settings: Settings) -> None:
    """The same for the command line that is running, if it is `flask run`."""
    context = click.get_current_context(silent=True)
    if context is not None and context.info_name == "run" and "host" in context.params:
        host = str(context.params["host"])
        check_addresses(settings, [] if host.startswith("unix://") else [host])
