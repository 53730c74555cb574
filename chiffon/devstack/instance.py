"""The folder of one running stack under `.chiffon/`, and the file that tells others how to reach the newest."""

from __future__ import annotations

import fcntl
import shlex
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ENV_FILE = "env"
_LOCK = "lock"


class Instance:
    """A folder with a name of its own, locked for as long as the process that made it lives."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700, exist_ok=True)
        self.name = uuid.uuid4().hex[:8]
        self.folder = home.resolve() / self.name
        self._announced = home.resolve() / ENV_FILE
        with _one_at_a_time(home):
            _remove_left_over(home)
            self.folder.mkdir(mode=0o700)
            self._lock = (self.folder / _LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    @property
    def env_file(self) -> Path:
        """The stack's own variables, to which `.chiffon/env` leads while it is the newest."""
        return self.folder / ENV_FILE

    def publish(self, variables: Mapping[str, str]) -> Path:
        """Write the variables in shell syntax, and have `.chiffon/env` lead to them; return its path."""
        lines = [
            "# Removed when the stack stops.",
            *(f"{name}={shlex.quote(value)}" for name, value in variables.items()),
            f"export {' '.join(variables)}",
        ]
        self.env_file.touch(mode=0o600)
        self.env_file.write_text("\n".join([*lines, ""]))
        link = self.folder / "link"
        link.symlink_to(self.env_file.relative_to(self._announced.parent))
        return link.rename(self._announced)

    def withdraw(self) -> None:
        """Remove the variables, and `.chiffon/env` unless it leads to a newer stack; the logs stay."""
        self.env_file.unlink(missing_ok=True)
        if self._announced.is_symlink() and not self._announced.exists():
            self._announced.unlink(missing_ok=True)
        self._lock.close()

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def _one_at_a_time(home: Path) -> Iterator[None]:
    with (home / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_left_over(home: Path) -> None:
    """Remove the folders of stacks that have ended: nobody holds their locks."""
    for lock in home.glob(f"*/{_LOCK}"):
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(lock.parent, ignore_errors=True)
