"""`shell.run`: one command, given as a list of arguments and never as a line for a shell."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import Field

from chiffon import Fail, WorkContext, settings, work
from workers.command import Command, Outcome, execute

_PRIVATE_NAMES = (
    "CHIFFON_", "CELERY_", "FLOWER_", "FLASK_", "_MP_FORK_", "AMQP_", "BROKER_", "CLOUDAMQP_", "RABBITMQ_",
    "DATABASE_", "POSTGRES_", "PGPASS", "PGSERVICE",
)  # fmt: skip
_PRIVATE_URL = re.compile(r"(amqps?|pyamqp|postgres(ql)?(\+\w+)?)://", re.IGNORECASE)

_STEERING_NAMES = (
    "PATH", "LD_*", "DYLD_*", "GCONV_PATH", "GLIBC_TUNABLES", "ENV", "IFS", "SHELLOPTS", "BASH*", "PS4",
    "PYTHON*", "PERL*", "RUBY*", "NODE_*", "GIT_*", "JAVA_*", "_JAVA_*", "JDK_*",
)  # fmt: skip
"""Variables by which a caller could make a program that is allowed run one that is not."""

_WHY = 2000
"""Characters of output in the error of a failed command."""


class CommandFailed(Exception):
    """The command's exit code was not 0. The retry policy decides whether it runs again."""


@work("shell.run")
def run(
    context: WorkContext,
    argv: Annotated[list[str], Field(min_length=1)],
    stdin: str | None = None,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    check: bool = True,
) -> Outcome:
    """Run a command, and give its exit code and its output.

    ``argv`` is the program and its arguments; no shell reads them. ``CHIFFON_SHELL_ALLOW`` says which programs
    may run. ``stdin`` is text for it to read, ``cwd`` the folder to start in (default: the agent's). ``env`` is
    added to the agent's environment, which is passed on without Chiffon's settings and without the credentials
    of its broker and database.

    The last line of output is shown as progress. stdout and stderr are text: what is not UTF-8, and NUL, becomes
    U+FFFD. Of each the first and the last 128 KB are kept, and ``truncated`` says whether anything was left out.
    An exit code other than 0 fails the task, unless ``check`` is false. When the task is cancelled or reaches its
    time limit, the command and its process group are ended: SIGTERM, and 2 seconds later SIGKILL. What a command
    leaves running in its group ends with it.
    """
    allow = settings().shell_allow
    # The environment is read here for no setting: it is what a child inherits.
    command = prepare(argv, allow=allow, agent=os.environ, stdin=stdin, cwd=cwd, env=env or {})
    outcome = execute(command, context, max_result=settings().max_result)
    if check and outcome["exit_code"] != 0:
        raise CommandFailed(_why(argv[0], outcome))
    return outcome


def prepare(
    argv: list[str],
    *,
    allow: tuple[str, ...],
    agent: Mapping[str, str],
    env: Mapping[str, str],
    stdin: str | None = None,
    cwd: str | None = None,
) -> Command:
    """Find the program, make sure that it may run, and choose its environment.

    Args:
        argv: the program, by name or path, and its arguments.
        allow: names such as ``git`` or ``py*``, which mean the programs that the *agent's* PATH leads to; full
            paths such as ``/opt/tools/*``, whose ``*`` crosses no ``/``; or ``*`` for everything. The file that
            is checked is the file that runs. What an allowed program does with its arguments is its own affair:
            to allow ``env`` or ``sh`` is to allow everything.
        agent: the agent's own environment.
        env: what the caller adds to it.

    Raises:
        Fail: the program may not run, or is not there.
    """
    search = agent.get("PATH", os.defpath)
    path = _find(argv[0], cwd, search)
    if "*" not in allow:
        _permit(argv[0], path, allow, search)
        _refuse_steering(env)
    if path is None:
        raise Fail(f"there is no program {argv[0]!r} on this agent")
    return Command(path, argv, _inherited(agent) | dict(env), stdin, cwd)


def _find(name: str, cwd: str | None, search: str) -> str | None:
    if "/" in name:
        return os.path.join(os.getcwd(), cwd or "", name)
    found = shutil.which(name, path=search)
    return found and os.path.abspath(found)


def _permit(name: str, path: str | None, allow: tuple[str, ...], search: str) -> None:
    # '..' is refused: behind a symbolic link it leads elsewhere than the text says.
    if path is not None and ".." not in PurePosixPath(path).parts:
        plain = os.path.normpath(path)
        base = os.path.basename(plain)
        is_on_path = "/" not in name or shutil.which(base, path=search) == plain
        for pattern in allow:
            if pattern.startswith("/") and PurePosixPath(plain).match(pattern):
                return
            if "/" not in pattern and is_on_path and fnmatchcase(base, pattern):
                return
    raise Fail(
        f"{name!r} may not run on this agent. CHIFFON_SHELL_ALLOW allows: {', '.join(allow) or 'nothing'}"
        " (names mean what the agent's PATH leads to; paths are full and without '..')"
    )


def _refuse_steering(env: Mapping[str, str]) -> None:
    for name in env:
        if any(fnmatchcase(name, pattern) for pattern in _STEERING_NAMES):
            raise Fail(
                f"the variable {name} may not be given while CHIFFON_SHELL_ALLOW names programs:"
                " it can make one of them run another"
            )


def _inherited(agent: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in agent.items()
        if not name.upper().startswith(_PRIVATE_NAMES) and not _PRIVATE_URL.search(value)
    }


def _why(name: str, outcome: Outcome) -> str:
    code = outcome["exit_code"]
    ended = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    lines = (outcome["stderr"].strip() or outcome["stdout"].strip()).splitlines()[-20:]
    last = "\n".join(lines)[-_WHY:]
    return f"{name!r} {ended}" + (f":\n{last}" if last else "")
