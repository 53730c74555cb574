"""Become an ordinary user, run the private RabbitMQ and Postgres as that user, and print as JSON what they were.

`python -m tests.ordinary_user FOLDER`, with a folder that is that user's own. Root becomes `nobody`, but not before
everything is imported: who is nobody may not be able to read the interpreter's home.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401  -- sockets import it when they first meet a host's name
import json
import os
import pwd
import sys
from pathlib import Path

import psutil

from chiffon.devstack.postgres import PrivatePostgres
from chiffon.devstack.rabbitmq import PrivateRabbitMQ

NOBODY = "nobody"


def become_ordinary() -> None:
    """Give up root's rights, for good; whoever has none stays who they are."""
    if os.geteuid() == 0:
        account = pwd.getpwnam(NOBODY)
        os.setgroups([])
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)


def main(folder: Path) -> None:
    """Start both, look, stop both."""
    become_ordinary()
    os.chdir(folder)
    with PrivatePostgres(folder / "postgres") as postgres, PrivateRabbitMQ(folder / "rabbitmq") as rabbitmq:
        found = {
            "uid": os.geteuid(),
            "postgres": postgres.version,
            "rabbitmq": rabbitmq.version,
            "data": [str(postgres.data), str(rabbitmq.data)],
            "uids": [psutil.Process(process.pid).uids().real for process in (*postgres.processes, *rabbitmq.processes)],
            "pids": [child.pid for child in psutil.Process().children(recursive=True)],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
