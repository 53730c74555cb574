"""A whole Chiffon on this machine: broker, ledger, API, two agents and Flower, private to one process."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from chiffon.config import Settings
from chiffon.devstack import packages, ports
from chiffon.devstack.errors import DevstackError, ProcessFailed
from chiffon.devstack.guardian import Guardian
from chiffon.devstack.instance import Instance
from chiffon.devstack.packages import Program
from chiffon.devstack.postgres import PrivatePostgres
from chiffon.devstack.process import Process
from chiffon.devstack.programs import Access, describe, flower_settings
from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from chiffon.devstack.screen import Screen
from chiffon.ledger import address, migrate

_GIVEN = {Program.RABBITMQ: "CHIFFON_BROKER_URL", Program.POSTGRES: "CHIFFON_DATABASE_URL"}
"""The variables that name a server to use instead of a private one."""


class Stack:
    """Everything that `make up` starts. ``home`` holds the folders of stacks, ``environ`` the caller's settings.

    A broker or database that ``environ`` names by URL is used instead of a private one.
    Raises SettingsError, DevstackError.
    """

    def __init__(self, home: Path, environ: Mapping[str, str], screen: Screen) -> None:
        address.check(Settings.from_environment(environ))
        self._settings = {name: value for name, value in environ.items() if name.startswith("CHIFFON_")}
        self._screen = screen
        self._api_port = _wanted_port(environ)
        self._needed = [program for program, name in _GIVEN.items() if not environ.get(name)]
        packages.ensure(self._needed, screen.say)
        self._guardian = Guardian()
        self._instance = Instance(home)
        self._rabbitmq: PrivateRabbitMQ | None = None
        self._postgres: PrivatePostgres | None = None
        self._programs: list[Process] = []

    @property
    def folder(self) -> Path:
        """Where the logs are."""
        return self._instance.folder

    def up(self) -> Access:
        """Start everything and return when it works. Raises DevstackError."""
        self._prepare_services()
        for service in self._services:
            service.launch()
        if self._postgres is not None:
            with self._screen.step("Postgres"):
                self._postgres.wait_until_ready()
                self._postgres.create_database("chiffon")
        access = self._grant()
        settings = self._settings_for(access)
        with self._screen.step("Migrations"):
            migrate.upgrade(Settings.from_environment(settings).direct_url)
        if self._rabbitmq is not None:
            with self._screen.step("RabbitMQ"):
                self._rabbitmq.wait_until_ready()
        self._programs = describe(access, settings, folder=self.folder, stack=self._instance.name)
        for program in self._programs:
            program.launch()
        for program in self._programs:
            with self._screen.step(program.name):
                program.wait_until_ready()
        self._guardian.remove_at_end(self._instance.env_file)
        self._instance.publish(access.variables())
        return access

    def check(self) -> None:
        """Raise ProcessFailed, with the last lines of its log, if one of the processes has ended."""
        watched = [process for service in self._services for process in service.processes]
        for process in watched + self._programs:
            if not process.is_running():
                raise ProcessFailed(f"{process.name} ended with {process.exit_code}\n{process.tail()}")

    def down(self) -> None:
        """Stop everything in order."""
        for program in self._programs:
            program.ask_to_stop()
        for program in self._programs:
            program.stop()
        if self._postgres is not None:
            self._postgres.stop()
        if self._rabbitmq is not None:
            self._rabbitmq.kill()  # its data goes with it, and an orderly stop takes seconds

    def close(self) -> None:
        """End what is left, however far `up` or `down` came. The logs stay until the next stack, or `forget`."""
        self._instance.withdraw()
        self._guardian.close()

    def forget(self) -> None:
        """Remove the stack's folder with its logs."""
        self._instance.remove()

    @property
    def _services(self) -> list[PrivateRabbitMQ | PrivatePostgres]:
        return [service for service in (self._postgres, self._rabbitmq) if service is not None]

    def _prepare_services(self) -> None:
        """Make what the caller has not given by URL, and drop the settings that belonged to another such."""
        if Program.RABBITMQ in self._needed:
            self._rabbitmq = PrivateRabbitMQ(self.folder / "rabbitmq", management=True)
            self._settings["CHIFFON_MANAGEMENT_URL"] = self._rabbitmq.management_url
        if Program.POSTGRES in self._needed:
            self._postgres = PrivatePostgres(self.folder / "postgres")
            self._settings.pop("CHIFFON_DATABASE_DIRECT_URL", None)
        for service in self._services:
            self._guardian.remove_at_end(service.data)

    def _grant(self) -> Access:
        """Make up the passwords and choose the ports."""
        return Access(
            api_url=f"http://{ports.LOOPBACK}:{self._api_port}",
            api_key=secrets.token_urlsafe(24),
            broker_url=self._rabbitmq.url if self._rabbitmq else self._settings["CHIFFON_BROKER_URL"],
            database_url=(
                self._postgres.url_of("chiffon") if self._postgres else self._settings["CHIFFON_DATABASE_URL"]
            ),
            flower_url=f"http://{ports.LOOPBACK}:{ports.free_port()}",
            flower_auth=f"chiffon:{secrets.token_urlsafe(16)}",
        )

    def _settings_for(self, access: Access) -> dict[str, str]:
        """Return the environment of the programs: the caller's settings, under what is private to the stack."""
        return {
            "CHIFFON_HTTP_ALLOW_NETWORKS": "127.0.0.0/8",  # the demo asks the API for its own description
            **self._settings,
            "CHIFFON_BROKER_URL": access.broker_url,
            "CHIFFON_DATABASE_URL": access.database_url,
            "CHIFFON_API_KEYS": ",".join(filter(None, [access.api_key, self._settings.get("CHIFFON_API_KEYS")])),
            **flower_settings(access, self._settings.get("CHIFFON_MANAGEMENT_URL", "")),
        }


def _wanted_port(environ: Mapping[str, str]) -> int:
    wanted = environ.get("CHIFFON_API_PORT")
    if not wanted:
        return ports.free_port()
    if not (wanted.isdecimal() and 0 < int(wanted) < 65536):
        raise DevstackError("CHIFFON_API_PORT: must be a port, a number between 1 and 65535")
    if not ports.is_free(int(wanted)):
        raise DevstackError(f"CHIFFON_API_PORT: something listens on port {wanted} already; choose another")
    return int(wanted)
