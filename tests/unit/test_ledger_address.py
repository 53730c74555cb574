"""An address of the ledger that Postgres' driver cannot use is refused before anything begins, password unsaid."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery
from celery.exceptions import ImproperlyConfigured
from click.testing import CliRunner

from chiffon.agent.backend import PostgresBackend
from chiffon.api.app import create_app
from chiffon.cli import main
from chiffon.config import Settings, SettingsError
from chiffon.devstack.process import inherited_environment
from chiffon.ledger import address

REPOSITORY = Path(__file__).parents[2]
WRONG = "postgresql://user:hunter2@127.0.0.1/chiffon?nonsense=1"
"""libpq knows no such option."""


@pytest.mark.parametrize(
    "url",
    [
        WRONG,
        "postgresql://user:hunter2@127.0.0.1/chiffon?async=1",
        "postgresql://127.0.0.1/chiffon?password=hunter2&sslmodus=require",
        "postgresql://user:hunter2@127.0.0.1/chiffon?dsn=nothing",
        "postgresql://user:hunter2@/chiffon?host=a:1:2&host=b:x",
        "postgresql://user:hunter2\udcff@127.0.0.1/chiffon",
    ],
)
@pytest.mark.parametrize("name", ["database_url", "database_direct_url"])
def test_what_the_driver_cannot_use_is_told_with_its_variable(name: str, url: str) -> None:
    with pytest.raises(SettingsError, match=f"^CHIFFON_{name.upper()}: Postgres' driver ") as found:
        address.check(Settings(**{name: url}))
    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://127.0.0.1:5432/chiffon",
        "postgresql://user:p%40ss%2Fword@db.example:6432/chiffon?sslmode=require&application_name=mine",
        "postgresql://user:word@/chiffon?host=a.example:5432&host=b.example:5433&target_session_attrs=read-write",
        "postgresql://user@/chiffon?host=/run/postgresql",
        "postgresql://user:word@[::1]/chiffon?options=-c%20search_path%3Dmine",
    ],
)
def test_what_it_can_use_passes(url: str) -> None:
    address.check(Settings(database_url=url, database_direct_url=url))


@pytest.mark.parametrize(
    "command", [["up"], ["demo"], ["db", "upgrade"], ["db", "downgrade", "base"], ["db", "current"]]
)
def test_no_command_begins_with_it(command: list[str]) -> None:
    result = CliRunner(env={"CHIFFON_DATABASE_URL": WRONG}).invoke(main, command)
    assert result.exit_code == 2
    assert result.stderr.startswith("chiffon: CHIFFON_DATABASE_URL: ")
    assert len(result.stderr.splitlines()) == 1


def test_the_doctor_names_it_among_the_settings() -> None:
    result = CliRunner(env={"CHIFFON_DATABASE_URL": WRONG}).invoke(main, ["doctor"])
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if line.startswith("BAD")]
    assert line.split()[1:3] == ["settings", "CHIFFON_DATABASE_URL:"]


def test_the_api_does_not_come_up_with_it() -> None:
    with pytest.raises(SettingsError, match="CHIFFON_DATABASE_URL"):
        create_app(Settings(database_url=WRONG))


@pytest.mark.parametrize("server", ["flask run --port 0", "gunicorn --no-control-socket --bind 127.0.0.1:0"])
def test_no_server_of_the_api_starts_with_it(server: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *server.split()],
        env=inherited_environment() | {"CHIFFON_DATABASE_URL": WRONG, "PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("chiffon: CHIFFON_DATABASE_URL: ")
    assert "Traceback" not in done.stderr


def test_no_result_backend_is_made_of_it() -> None:
    with pytest.raises(ImproperlyConfigured, match="nonsense"):
        PostgresBackend(app=Celery(), url=WRONG)
