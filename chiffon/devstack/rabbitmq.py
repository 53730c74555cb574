"""A private RabbitMQ node: its own folder, ports, cookie and port mapper (epmd), reachable from loopback only."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import subprocess
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote, urlsplit

import amqp

from chiffon.devstack import ports, unproxied
from chiffon.devstack.errors import MissingProgram
from chiffon.devstack.process import Process, inherited_environment

_HOMES = (
    "/usr/lib/rabbitmq/bin",  # Debian; its /usr/sbin wrapper insists on the system's own node
    "/opt/homebrew/opt/rabbitmq/sbin",
    "/usr/local/opt/rabbitmq/sbin",
    "/home/linuxbrew/.linuxbrew/opt/rabbitmq/sbin",
)
USER = "chiffon"


def find_scripts() -> Path:
    """Return the folder of `rabbitmq-server` and `rabbitmqctl`. Raises MissingProgram."""
    for home in _HOMES:
        if Path(home, "rabbitmq-server").exists():
            return Path(home)
    on_path = shutil.which("rabbitmq-server")
    if on_path and on_path != "/usr/sbin/rabbitmq-server":
        return Path(on_path).resolve().parent
    raise MissingProgram("RabbitMQ is not installed (rabbitmq-server was not found)")


class PrivateRabbitMQ:
    """A node that keeps its URL, data and password through stop, kill and start, until it is wiped.

    ``management``: with the management plugin, which adds about two seconds to a start. ``config``: further
    lines for `rabbitmq.conf`.
    """

    def __init__(self, folder: Path, *, management: bool = False, config: str = "") -> None:
        self.folder = folder
        self.port = ports.free_port()
        self._management_port = ports.free_port() if management else None
        self._password = secrets.token_urlsafe(16)
        self._scripts = find_scripts()
        self._epmd_port = ports.free_port()
        self._environment = self._describe(config)
        self._epmd = self._port_mapper()
        self._node = Process(
            "RabbitMQ",
            [self._scripts / "rabbitmq-server"],
            log=folder / "rabbitmq.log",
            environment=self._environment | {"RUNNING_UNDER_SYSTEMD": "true"},  # the script then becomes the node
            folder=folder,
            ready=lambda: ports.answers(self.port) and bool(self.version),
            start_timeout=120,
            stop_timeout=30,
        )

    @property
    def url(self) -> str:
        """The AMQP URL of the default virtual host."""
        return self.url_of("/")

    def url_of(self, vhost: str) -> str:
        """Return the AMQP URL of ``vhost``."""
        return f"amqp://{USER}:{self._password}@{ports.LOOPBACK}:{self.port}/{quote(vhost, safe='')}".replace(
            "/%2F", "//"
        )

    @property
    def management_url(self) -> str:
        """The URL of the management API, with its password; empty without the plugin."""
        if self._management_port is None:
            return ""
        return f"http://{USER}:{self._password}@{ports.LOOPBACK}:{self._management_port}"

    @property
    def version(self) -> str:
        """The version that the node itself names in the handshake. Raises OSError when it does not answer."""
        return broker_version(self.url)

    @property
    def processes(self) -> tuple[Process, ...]:
        """The processes that must be there while the node is up."""
        return (self._epmd, self._node)

    @property
    def log(self) -> Path:
        """The node's log file."""
        return self._node.log

    @property
    def data(self) -> Path:
        """The folder to remove when the node is no longer wanted."""
        return self.folder / "data"

    def launch(self) -> None:
        """Start the node without waiting for it."""
        self._epmd.start()
        self._node.launch()

    def wait_until_ready(self) -> None:
        """Wait until the node takes connections. Raises ProcessFailed."""
        self._node.wait_until_ready()

    def start(self) -> None:
        """Start the node, with the data it had, and wait until it takes connections. Raises ProcessFailed."""
        self.launch()
        self.wait_until_ready()

    def stop(self) -> None:
        """Stop the node in order, and its port mapper."""
        self._node.stop()
        self._epmd.stop()

    def kill(self) -> None:
        """End the node with SIGKILL; its data stays, and `start` brings it back at the same URL."""
        self._node.kill()

    def pause(self) -> None:
        """Stop the node in its tracks: connections stay open and nothing answers."""
        self._node.pause()

    def resume(self) -> None:
        """Let the node go on after a pause."""
        self._node.resume()

    def is_running(self) -> bool:
        """Tell whether the node's process is there."""
        return self._node.is_running()

    def wipe(self) -> None:
        """Kill the node if it runs and forget everything it knew: queues, messages, exchanges, users."""
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)

    def ctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` against the node and return what it printed. It takes about two seconds."""
        done = subprocess.run(
            [self._scripts / "rabbitmqctl", "--quiet", *arguments],
            env=inherited_environment() | self._environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def create_vhost(self) -> str:
        """Make a new, empty virtual host and return its URL. Needs the management plugin."""
        name = uuid.uuid4().hex
        call_management(self.management_url, "PUT", f"/api/vhosts/{name}")
        return self.url_of(name)

    def drop_vhost(self, url: str) -> None:
        """Delete the virtual host of ``url`` with everything in it, its connections included."""
        call_management(self.management_url, "DELETE", f"/api/vhosts/{urlsplit(url).path[1:]}")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _describe(self, config: str) -> dict[str, str]:
        """Write the node's configuration and return the environment that points at it, and at nothing else."""
        folder = self.folder.resolve()
        (folder / "conf.d").mkdir(parents=True, exist_ok=True)
        (folder / "rabbitmq-env.conf").touch()
        lines = [
            f"listeners.tcp.default = {ports.LOOPBACK}:{self.port}",
            f"default_user = {USER}",
            f"default_pass = {self._password}",
            "disk_free_limit.absolute = 50MB",
            "log.console = true",
            "log.console.level = info",
            "log.file = false",
        ]
        if self._management_port is not None:
            lines += [
                f"management.tcp.ip = {ports.LOOPBACK}",
                f"management.tcp.port = {self._management_port}",
            ]
        (folder / "rabbitmq.conf").write_text("\n".join([*lines, config, ""]))
        plugins = "" if self._management_port is None else "rabbitmq_management"
        (folder / "enabled_plugins").write_text(f"[{plugins}].\n")
        (folder / "rabbitmq.conf").chmod(0o600)
        return {
            "HOME": str(folder),  # where Erlang keeps its cookie
            "RABBITMQ_NODENAME": f"chiffon{self.port}@localhost",
            "RABBITMQ_BASE": str(folder),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_DIST_PORT": str(ports.free_port()),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": ports.LOOPBACK,
            "ERL_EPMD_PORT": str(self._epmd_port),
        }

    def _port_mapper(self) -> Process:
        """Return epmd as a process of ours: started by Erlang it would be a daemon that outlives the node."""
        program = shutil.which("epmd")
        if program is None:
            raise MissingProgram("Erlang's epmd was not found in PATH; it comes with RabbitMQ's Erlang")
        return Process(
            "epmd",
            [program],
            log=self.folder / "epmd.log",
            environment=self._environment,
            ready=lambda: ports.answers(self._epmd_port),
            start_timeout=20,
        )


def broker_version(url: str) -> str:
    """Return the version that the broker at ``url`` names in the AMQP handshake. Raises OSError."""
    parts = urlsplit(url)
    connection = amqp.Connection(
        host=f"{parts.hostname}:{parts.port or 5672}",
        userid=parts.username or "guest",
        password=parts.password or "guest",
        virtual_host=unquote(parts.path[1:]) or "/",
        connect_timeout=5,
        read_timeout=5,
    )
    try:
        connection.connect()
        return str(connection.server_properties["version"])
    except amqp.AMQPError as error:
        raise OSError(str(error)) from error
    finally:
        with contextlib.suppress(OSError, amqp.AMQPError):
            connection.close()


def call_management(url: str, method: str, path: str) -> None:
    """Call the management API under ``url`` (with user and password in it). Raises OSError."""
    parts = urlsplit(url)
    answer = unproxied.session().request(
        method,
        f"http://{parts.hostname}:{parts.port}{path}",
        auth=(unquote(parts.username or ""), unquote(parts.password or "")),
        json={} if method == "PUT" else None,
        timeout=30,
    )
    answer.raise_for_status()
