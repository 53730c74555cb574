"""What the stack needs from the system's package manager, and how it gets there."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from chiffon.devstack import postgres, rabbitmq
from chiffon.devstack.errors import DevstackError, MissingProgram, NotAllowed


class Program(Enum):
    """A server that can be run privately, and its package's name in each package manager."""

    RABBITMQ = ("RabbitMQ", "rabbitmq-server", "rabbitmq")
    POSTGRES = ("Postgres", "postgresql", "postgresql@17")

    def __init__(self, title: str, apt: str, brew: str) -> None:
        self.title = title
        self.apt = apt
        self.brew = brew


_FINDERS: dict[Program, Callable[[], object]] = {
    Program.RABBITMQ: rabbitmq.find_scripts,
    Program.POSTGRES: postgres.find_programs,
}

_APT_SCRIPT = """
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then  # Debian's packages start a server of their own; a private one is all we want
    trap 'rm -f $policy' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\\nexit 101\\n' >$policy
    chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "$@"
"""


@dataclass(frozen=True)
class Machine:
    """What decides how a package gets installed here."""

    is_root: bool
    has_apt: bool
    has_brew: bool
    has_free_sudo: bool

    @classmethod
    def this(cls) -> Machine:
        """Look at this machine and this user."""
        is_root = os.geteuid() == 0
        return cls(
            is_root=is_root,
            has_apt=shutil.which("apt-get") is not None,
            has_brew=shutil.which("brew") is not None,
            has_free_sudo=not is_root and _sudo_asks_nothing(),
        )


def missing(needed: Iterable[Program]) -> list[Program]:
    """Return those of ``needed`` that are not installed."""
    return [program for program in needed if not _is_there(program)]


def command_for(programs: Sequence[Program], machine: Machine) -> list[str]:
    """Return the command that installs ``programs``. Raises NotAllowed, with the command for somebody who may."""
    names = " and ".join(program.title for program in programs)
    apt = [program.apt for program in programs]
    brew = ["brew", "install", *(program.brew for program in programs)]
    if machine.has_brew and not (machine.is_root or machine.has_apt):
        return brew
    if machine.has_apt and machine.is_root:
        return ["sh", "-c", _APT_SCRIPT, "apt", *apt]
    if machine.has_apt and machine.has_free_sudo:
        return ["sudo", "-n", "sh", "-c", _APT_SCRIPT, "apt", *apt]
    if machine.has_apt:
        advice = f"Run this, and start again:\n\n    sudo apt-get install -y {shlex.join(apt)}\n"
    elif machine.has_brew:
        advice = f"Homebrew refuses root. As an ordinary user run this, and start again:\n\n    {shlex.join(brew)}\n"
    else:
        advice = "Neither apt-get nor brew is here: install them as this system does it, and start again.\n"
    raise NotAllowed(
        f"{names} must be installed, and this user may not. {advice}\n"
        "Or name servers that run already in CHIFFON_BROKER_URL and CHIFFON_DATABASE_URL."
    )


def ensure(needed: Iterable[Program], say: Callable[[str], None]) -> None:
    """Install what is missing of ``needed``, after saying so. Raises NotAllowed, DevstackError."""
    absent = missing(needed)
    if not absent:
        return
    command = command_for(absent, Machine.this())
    names = " and ".join(program.title for program in absent)
    say(f"{names} not found: installing with {'Homebrew' if command[0] == 'brew' else 'apt-get'}; this takes a minute")
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise DevstackError(f"Installing {names} failed with exit code {done.returncode}:\n{last}")
    if missing(absent):
        raise DevstackError(f"{names}: installed, and still not found where this system should have put it")


def main() -> None:
    """Install whatever is missing, for `make test`; exit code 2 if this user may not."""
    try:
        ensure(Program, print)
    except NotAllowed as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _is_there(program: Program) -> bool:
    try:
        _FINDERS[program]()
    except MissingProgram:
        return False
    return True


def _sudo_asks_nothing() -> bool:
    if shutil.which("sudo") is None:
        return False
    return subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    main()
