"""The `chiffon` command."""

from __future__ import annotations

import os
import sys
from typing import Any

import click
import requests

from chiffon.config import Settings, SettingsError
from chiffon.devstack import demo as demonstration
from chiffon.devstack import doctor as checks
from chiffon.devstack import foreground, unproxied
from chiffon.devstack.errors import DevstackError, MissingProgram, NotAllowed
from chiffon.devstack.screen import Screen
from chiffon.domain.errors import ChiffonError
from chiffon.ledger import address, migrate
from chiffon.ledger.migrate import NoSuchRevision

FAILED = 1
CANNOT_BEGIN = 2
"""As click's own: what was asked for cannot be begun before the user changes something."""


class Group(click.Group):
    """Commands whose expected errors are one message and an exit code, and no traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (SettingsError, MissingProgram, NotAllowed, NoSuchRevision) as error:
            _give_up(error, CANNOT_BEGIN)
        except (DevstackError, ChiffonError) as error:
            _give_up(error, FAILED)


@click.group(cls=Group)
@click.version_option(package_name="chiffon")
def main() -> None:
    """Chiffon: work that must not be lost, done by Celery agents over RabbitMQ, with Postgres as the ledger."""
    sys.path.insert(0, os.getcwd())  # as `celery -A chiffon` does: `workers/` lies in the folder it is started in


@main.command()
@click.option("--with-parent", is_flag=True, help="Stop, too, when the process that started this one has ended.")
def up(with_parent: bool) -> None:
    """Run everything here, privately and in the foreground: broker, ledger, API, two agents, Flower."""
    foreground.stay_up(os.environ, Screen(), parent=os.getppid() if with_parent else None)


@main.command()
def demo() -> None:
    """Do what `up` does, dispatch real work, show what came of it, stop. Exit code 1 if anything was unexpected."""
    if not demonstration.run(os.environ, Screen()):
        sys.exit(FAILED)


@main.group()
def db() -> None:
    """The ledger's schema."""


@db.command()
@click.argument("revision", default="head")
def upgrade(revision: str) -> None:
    """Bring the ledger of CHIFFON_DATABASE_URL to REVISION, by default the newest."""
    url = _ledger_url()
    migrate.upgrade(url, revision)
    click.echo(f"The ledger is at {migrate.status(url).current}.")


@db.command()
@click.argument("revision")
def downgrade(revision: str) -> None:
    """Take the ledger back to REVISION ("base": to nothing). What the later revisions held is lost."""
    url = _ledger_url()
    migrate.downgrade(url, revision)
    click.echo(f"The ledger is at {migrate.status(url).current or 'nothing'}.")


@db.command()
def current() -> None:
    """Print the ledger's revision and the one that this version needs; exit code 1 if it is behind."""
    status = migrate.status(_ledger_url())
    click.echo(f"{status.current or 'nothing'} (this version needs {status.head})")
    if status.is_behind:
        sys.exit(FAILED)


@main.command()
def doctor() -> None:
    """Look at everything Chiffon needs; each line says that it is well, or what to do."""
    is_well = True
    for finding in checks.examine(os.environ):
        click.echo(f"{'ok ' if finding.is_well else 'BAD'}  {finding.subject:<10}  {finding.note}")
        is_well = is_well and finding.is_well
    if not is_well:
        sys.exit(FAILED)


@main.group()
def health() -> None:
    """Probes, for containers: exit code 1 if a restart might help."""


@health.command()
@click.argument("name", required=False)
def agent(name: str | None) -> None:
    """Ask whether the agent works that `celery -A chiffon worker` (with `-n NAME`) has started on this host.

    A ledger or a broker that is away says nothing about the agent, which waits for it too.
    """
    from chiffon.agent.health import agent_called, signs_of_life  # the only command that needs Celery

    for sign in signs_of_life(agent_called(name)):
        click.echo(sign.said)
        if sign.lives is False:
            sys.exit(FAILED)


@health.command()
@click.argument("url")
def http(url: str) -> None:
    """Ask whether URL is answered with success within 5 seconds."""
    try:
        answer = unproxied.session().get(url, timeout=5)
    except requests.RequestException as error:
        raise DevstackError(f"{url} does not answer: {error}") from error
    click.echo(f"{url} answers {answer.status_code}")
    if not answer.ok:
        sys.exit(FAILED)


def _ledger_url() -> str:
    settings = Settings.from_environment()
    address.check(settings)
    return settings.direct_url


def _give_up(error: Exception, code: int) -> None:
    click.echo(f"chiffon: {error}", err=True)
    sys.exit(code)
