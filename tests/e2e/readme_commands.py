"""A page's commands, run as a reader would type them: nothing is rewritten, and what fails there fails here.

What is run are the fenced blocks of these languages, in the order of the page, from the root of a fresh clone:

- ``bash`` and ``sh``: a script. ``console``: lines that begin with ``$ `` are typed (``> `` goes on with the line
  before), the others are what the reader is shown: they must come in that order, with ``...`` for whatever varies.
- All of them are typed into one terminal, so that what a block exports or activates is there for the next; a command
  that ends with an error fails the scenario.
- ``background`` behind the language: the block goes into a terminal of its own and is left running, Ctrl-C at the
  end of the page. ``until="..."``: what the reader waits for before he types on; a file that appears, or else a text
  in that terminal. Example: ```` ```bash background until=".chiffon/env" ````
- ``title="path"`` behind any other language: the reader writes the block into that file of the clone. Example:
  ```` ```python title="workers/text.py" ````

Left out are the lines that run the tests, for they would run this one again (`LEFT_OUT`), and whole blocks that use
`docker` where no engine answers. Blocks of other languages without a title are for the eye only.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from chiffon.devstack.guardian import lives
from chiffon.devstack.process import inherited_environment
from tests.e2e.waiting import eventually

LEFT_OUT = re.compile(r"\s*(make\s+(test|e2e|integration|unit)|(\S*/)?pytest)\b")
"""Lines that are not run."""

PATIENCE = 600.0
"""Seconds that one block may take; the first one installs everything."""

_SHELLS = {"bash", "sh", "console"}
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>[^`]*)$")


class NotTrue(AssertionError):
    """The page says something that does not hold."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what stands behind that, its text, and the line that it begins in."""

    language: str
    flags: frozenset[str]
    options: dict[str, str]
    text: str
    line: int

    @property
    def script(self) -> str:
        """What is typed; empty if nothing is."""
        if self.language not in _SHELLS:
            return ""
        typed = _typed(self.text) if self.language == "console" else self.text.splitlines()
        return "\n".join(line for line in typed if not LEFT_OUT.match(line)).strip()

    @property
    def shown(self) -> list[str]:
        """What the reader is told to see, line by line."""
        if self.language != "console":
            return []
        return [line for line in self.text.splitlines() if line.strip() and not line.startswith(("$ ", "> "))]

    @property
    def wants_docker(self) -> bool:
        """Whether it can only be run where there is a docker engine."""
        return bool(re.search(r"^\s*docker\b", self.script, re.MULTILINE))


def parse(page: str) -> list[Block]:
    """Return the fenced blocks of a page of Markdown, in order."""
    blocks = []
    lines = iter(enumerate(page.splitlines(), start=1))
    for number, line in lines:
        opening = _FENCE.match(line)
        if opening is None:
            continue
        text = [inside for _, inside in _until_closed(lines, opening["fence"])]
        language, *rest = shlex.split(opening["info"]) or [""]
        options = dict(word.split("=", 1) for word in rest if "=" in word)
        flags = frozenset(word for word in rest if "=" not in word)
        blocks.append(Block(language, flags, options, textwrap.dedent("\n".join(text)), number))
    return blocks


def _until_closed(lines: Iterator[tuple[int, str]], fence: str) -> Iterator[tuple[int, str]]:
    for number, line in lines:
        if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            return
        yield number, line


def _typed(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.startswith(("$ ", "> ")):
            yield line[2:]


@dataclass
class Terminal:
    """A shell that remembers, as a reader's does. ``folder``: where it is opened; ``log``: what it shows."""

    folder: Path
    log: Path
    _shell: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        with self.log.open("ab") as output:
            self._shell = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=readers_environment(),
                start_new_session=True,
            )

    def type(self, script: str) -> str:
        """Type a script, without waiting; return the word that is shown at its end, with its exit code behind it.

        The commands read nothing of what is typed after them. The first that fails decides the exit code.
        """
        end = f"end-of-block-{uuid.uuid4().hex}"
        file = self.log.with_name(f"{end}.sh")
        file.write_text(script)
        assert self._shell.stdin is not None
        typed = f"failed=0; trap 'failed=$?; trap - ERR' ERR; . {file} </dev/null; trap - ERR; echo {end} $failed\n"
        self._shell.stdin.write(typed.encode())
        self._shell.stdin.flush()
        return end

    def wait_for(self, end: str, limit: float) -> int | None:
        """Return the exit code that is shown behind ``end``; None if the shell itself ended."""
        found: list[int | None] = []

        def look() -> bool:
            for line in self.shown().splitlines():
                if line.startswith(end):
                    found.append(int(line.removeprefix(end)))
            if not found and self._shell.poll() is not None:
                found.append(None)
            return bool(found)

        eventually("the block to end (one that does not says `background`)", look, within=limit)
        return found[0]

    def shown(self) -> str:
        """Everything on the screen."""
        return self.log.read_text(errors="replace")

    def is_open(self) -> bool:
        """Whether the shell is there."""
        return self._shell.poll() is None

    def interrupt(self, limit: float = 60) -> None:
        """Press Ctrl-C and close it. Fails if it, or what was started in it, is still there after ``limit``."""
        started = psutil.Process(self._shell.pid).children(recursive=True) if self.is_open() else []
        if self.is_open():
            os.killpg(self._shell.pid, signal.SIGINT)
            assert self._shell.stdin is not None
            self._shell.stdin.close()
        try:
            # The shell itself, too: it may have nothing running, and a trap to run yet.
            eventually(
                "Ctrl-C to end it",
                lambda: not self.is_open() and not any(lives(process) for process in started),
                within=limit,
            )
        finally:
            self.kill(started)

    def kill(self, started: list[psutil.Process] | None = None) -> None:
        """End it and what it started."""
        if self.is_open():
            started = [*(started or []), *psutil.Process(self._shell.pid).children(recursive=True)]
            self._shell.kill()
        for process in started or []:
            if lives(process):
                process.kill()
        self._shell.wait()


class Reader:
    """Somebody who does what the page says, in ``clone``; what the terminals show is kept in ``folder``."""

    def __init__(self, clone: Path, folder: Path) -> None:
        self._clone = clone
        self._folder = folder
        self._first = Terminal(clone, folder / "terminal-1.log")
        self._others: list[Terminal] = []
        self.typed: list[Block] = []

    def follow(self, blocks: list[Block], page: str = "README.md") -> None:
        """Do what each block of ``page`` says. Raises NotTrue, naming the block."""
        for block in blocks:
            try:
                self._do(block)
            except AssertionError as error:
                raise NotTrue(f"{page}, line {block.line}: {error}\n{block.text}") from error

    def close(self) -> None:
        """Press Ctrl-C in every terminal that is still busy, the newest first. Fails if something does not end."""
        for terminal in reversed(self._others):
            terminal.interrupt()
        self._first.kill()

    def kill(self) -> None:
        """End everything, however the reading went."""
        for terminal in (*self._others, self._first):
            terminal.kill()

    def _do(self, block: Block) -> None:
        if block.language not in _SHELLS:
            if "title" in block.options:
                self._write(block.options["title"], block.text)
        elif block.script and not (block.wants_docker and not docker_answers()):
            self.typed.append(block)
            if "background" in block.flags:
                self._leave_running(block)
            else:
                self._type(block)

    def _write(self, name: str, text: str) -> None:
        path = self._clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def _type(self, block: Block) -> None:
        before = len(self._first.shown())
        code = self._first.wait_for(self._first.type(block.script), PATIENCE)
        shown = self._first.shown()[before:]
        assert code == 0, f"it ended with {code}:\n{shown}"
        _compare(block.shown, shown)

    def _leave_running(self, block: Block) -> None:
        terminal = Terminal(self._clone, self._folder / f"terminal-{len(self._others) + 2}.log")
        self._others.append(terminal)
        end = terminal.type(block.script)
        if (until := block.options.get("until")) is None:
            return

        def there() -> bool:
            assert end not in terminal.shown(), f"it should go on, and ended:\n{terminal.shown()}"
            return (self._clone / until).exists() or until in terminal.shown()

        eventually(until, there, within=PATIENCE)


def docker_answers() -> bool:
    """Whether there is a docker engine."""
    found = shutil.which("docker")
    return found is not None and subprocess.run([found, "info"], capture_output=True, check=False).returncode == 0


def readers_environment() -> dict[str, str]:
    """Return the environment of somebody who has just logged in: without our virtual environment and settings."""
    ours = str(Path(sys.executable).parent)
    environment = inherited_environment()
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTEST_CURRENT_TEST"):
        environment.pop(name, None)
    environment["PATH"] = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != ours)
    return environment


def _compare(expected: list[str], shown: str) -> None:
    lines = iter(shown.splitlines())
    for line in expected:
        pattern = re.compile(".*".join(re.escape(part) for part in re.split(r"\.\.\.|…", line.strip())))
        assert any(pattern.fullmatch(actual.strip()) for actual in lines), f"{line!r} was not shown in:\n{shown}"
