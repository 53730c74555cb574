"""A private Postgres server: its own folder, port and password, reachable from loopback only."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg2

from chiffon.devstack import ports
from chiffon.devstack.errors import DevstackError, MissingProgram, ProcessFailed
from chiffon.devstack.process import Process

_HOMES = (
    "/usr/lib/postgresql/*/bin",  # Debian keeps one folder a version
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql*/bin",
)
USER = "chiffon"

_OPTIONS = {
    "listen_addresses": ports.LOOPBACK,
    "unix_socket_directories": "",  # a socket's path may have no more than 107 bytes, and a checkout's may be longer
    "dynamic_shared_memory_type": "mmap",  # in the data folder: what a crash leaves goes with it
    "max_connections": "200",
    "fsync": "on",  # durability is the product: what the tests prove must hold after a crash
    "synchronous_commit": "on",
    "log_min_messages": "warning",
}


def find_programs() -> Path:
    """Return the folder of `initdb` and `postgres`, the newest version first. Raises MissingProgram."""
    found = [folder for pattern in _HOMES for folder in Path("/").glob(pattern.lstrip("/"))]
    found = [folder for folder in found if (folder / "initdb").exists() and (folder / "postgres").exists()]
    if found:
        return max(found, key=lambda folder: _version_in(str(folder)))
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    raise MissingProgram("Postgres is not installed (initdb was not found)")


def _version_in(path: str) -> int:
    numbers = re.findall(r"postgresql[@/]?(\d+)", path)
    return int(numbers[-1]) if numbers else 0


class PrivatePostgres:
    """A server that keeps its URL, data and password through stop, kill and start, until it is wiped.

    Postgres refuses to run as root: then it runs as `postgres` or `nobody`, with its data in ``/var/tmp``, for
    that user may not be able to reach ``folder``. Else the data is in ``folder``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = ports.free_port()
        self._password = secrets.token_urlsafe(16)
        self._programs = find_programs()
        self._account = _unprivileged_account() if os.geteuid() == 0 else None
        folder.mkdir(parents=True, exist_ok=True)
        self._data = self._data_folder()
        self._server = Process(
            "Postgres",
            [
                self._programs / "postgres",
                *("-D", self._data, "-p", str(self.port)),
                *(f"--{name}={value}" for name, value in _OPTIONS.items()),
            ],
            log=folder / "postgres.log",
            folder=Path("/"),
            account=self._account,
            ready=lambda: bool(self.version),
            stop_signal=signal.SIGINT,  # "fast": ends the sessions, writes everything down
        )

    @property
    def url(self) -> str:
        """The URL of the maintenance database `postgres`."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """Return the URL of ``database``."""
        return f"postgresql://{USER}:{self._password}@{ports.LOOPBACK}:{self.port}/{database}"

    @property
    def version(self) -> str:
        """The server's version. Raises OSError when it does not answer."""
        return str(self._ask("SHOW server_version")[0][0])

    @property
    def processes(self) -> tuple[Process, ...]:
        """The processes that must be there while the server is up."""
        return (self._server,)

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._server.log

    @property
    def data(self) -> Path:
        """The folder to remove when the server is no longer wanted."""
        return self._data

    def launch(self) -> None:
        """Start the server, made first if it is new, without waiting for it. Raises ProcessFailed."""
        if not (self._data / "PG_VERSION").exists():
            self._make()
        self._server.launch()

    def wait_until_ready(self) -> None:
        """Wait until the server takes connections. Raises ProcessFailed."""
        self._server.wait_until_ready()

    def start(self) -> None:
        """Start the server, with the data it had, and wait until it takes connections. Raises ProcessFailed."""
        self.launch()
        self.wait_until_ready()

    def stop(self) -> None:
        """Stop the server in order, ending its sessions."""
        self._server.stop()

    def kill(self) -> None:
        """End the server and its sessions with SIGKILL; its data stays, and `start` recovers it."""
        self._server.kill()

    def restart(self) -> None:
        """Stop the server in order and start it at the same URL."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Stop the server in its tracks: sessions stay open and nothing answers."""
        self._server.pause()

    def resume(self) -> None:
        """Let the server go on after a pause."""
        self._server.resume()

    def is_running(self) -> bool:
        """Tell whether the server's process is there."""
        return self._server.is_running()

    def wipe(self) -> None:
        """Kill the server if it runs and remove its data."""
        self.kill()
        shutil.rmtree(self._data, ignore_errors=True)

    def create_database(self, name: str | None = None, *, template: str = "template1") -> str:
        """Make a database, empty or a copy of ``template``, under a name of its own by default; return its URL."""
        name = name or f"chiffon_{uuid.uuid4().hex}"
        self._ask(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url_of(name)

    def drop_database(self, url: str) -> None:
        """Drop the database of ``url``, ending the sessions that use it."""
        self._ask(f'DROP DATABASE IF EXISTS "{url.rpartition("/")[2]}" WITH (FORCE)')

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._account is not None:
            shutil.rmtree(self._data, ignore_errors=True)

    def _data_folder(self) -> Path:
        if self._account is None:
            return self.folder.resolve() / "data"
        return Path(tempfile.mkdtemp(prefix="chiffon-postgres-", dir="/var/tmp"))

    def _make(self) -> None:
        """Run initdb. The password is handed over in a file, so that no list of processes shows it."""
        self._data.mkdir(exist_ok=True)
        password = self._data.with_suffix(".password")
        password.touch(mode=0o600)
        password.write_text(self._password)
        for path in (self._data, password):
            if self._account is not None:
                shutil.chown(path, self._account)
        initdb: list[str | Path] = [
            self._programs / "initdb",
            *("-D", self._data, "-U", USER, "--pwfile", password),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"),
        ]
        try:
            done = subprocess.run(initdb, cwd="/", user=self._account, capture_output=True, text=True, check=False)
        finally:
            password.unlink()
        if done.returncode != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            raise ProcessFailed(f"initdb ended with {done.returncode}\n{done.stderr}")

    def _ask(self, statement: str) -> list[tuple[Any, ...]]:
        try:
            session = psycopg2.connect(self.url, connect_timeout=5)
        except psycopg2.OperationalError as error:
            raise OSError(str(error).strip()) from error
        with contextlib.closing(session):
            session.autocommit = True
            with session.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []


def _unprivileged_account() -> str:
    for name in ("postgres", "_postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise DevstackError("Postgres refuses to run as root, and there is no user 'postgres' or 'nobody' to run it as")
