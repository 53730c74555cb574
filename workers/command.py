"""Running a command on a leash: following it, keeping what it says, ending it with all that it started."""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TypedDict

from chiffon import Fail, WorkContext

GRACE = 2.0
"""Seconds between asking a command to end (SIGTERM) and making it (SIGKILL)."""

LOOK_EVERY = 0.5
"""Seconds between two looks at whether the task was cancelled, and between two notes of progress."""

DRAIN = 1.0
"""Seconds to go on reading after the end, should a process that left the group hold the output open."""

KEEP = 128 * 1024
"""Bytes kept of the beginning of a stream, and as many of its end."""

RECENT = 4096
"""Bytes in which the last line is looked for."""

NOTE = 200
"""Characters of a note of progress."""

LEASH = Path(__file__).with_name("leash.py")


class Outcome(TypedDict):
    """How a command ended. ``exit_code`` is negative for one that a signal ended: minus the signal's number."""

    exit_code: int
    stdout: str
    stderr: str
    truncated: bool
    duration_seconds: float


@dataclass(frozen=True)
class Command:
    """What to run. ``path`` is the program's file, ``env`` all of its environment, ``stdin`` what it may read."""

    path: str
    argv: list[str]
    env: Mapping[str, str]
    stdin: str | None = None
    cwd: str | None = None


def execute(command: Command, context: WorkContext, *, max_result: int) -> Outcome:
    """Run the command to its end. ``max_result``: bytes of JSON that the outcome may have.

    Whatever is raised meanwhile, such as a soft time limit, ends the command's process group before it goes on.

    Raises:
        Fail: the command could not be started, or the task was cancelled.
    """
    began = time.monotonic()
    with _on_leash(command) as run:
        run.follow(context)
        exit_code = run.exit_code()
    stdout, stdout_is_cut = run.stdout.text(max_result // 2 - 200)
    stderr, stderr_is_cut = run.stderr.text(max_result // 2 - 200)
    return Outcome(
        exit_code=exit_code,
        stdout=stdout,
        stderr=stderr,
        truncated=stdout_is_cut or stderr_is_cut,
        duration_seconds=round(time.monotonic() - began, 3),
    )


@dataclass
class Capture:
    """The beginning and the end of a stream of bytes; ``keep`` bytes of each."""

    keep: int = KEEP
    total: int = 0
    _head: bytearray = field(default_factory=bytearray)
    _tail: bytearray = field(default_factory=bytearray)

    def add(self, data: bytes) -> None:
        """Take what comes next."""
        self.total += len(data)
        room = self.keep - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self.keep:
            del self._tail[: -self.keep]

    def text(self, limit: int) -> tuple[str, bool]:
        """The text, in at most ``limit`` bytes of JSON, and whether its middle had to go for that."""
        keep = self.keep
        text, is_cut = self._render(keep)
        while len(json.dumps(text)) > limit and keep:
            keep = keep * 3 // 4
            text, is_cut = self._render(keep)
        return text, is_cut

    def _render(self, keep: int) -> tuple[str, bool]:
        left_out = self.total - 2 * keep
        kept = bytes(self._head + self._tail)
        if left_out <= 0:
            return _readable(kept), False
        end = kept[len(kept) - keep :]
        return f"{_readable(kept[:keep])}\n[... {left_out} bytes left out ...]\n{_readable(end)}", True


@contextmanager
def _on_leash(command: Command) -> Iterator[_Run]:
    """The running command. Its leash sees our end of the line close, even if we are killed."""
    ours, theirs = socket.socketpair()
    with ours, tempfile.TemporaryFile() as given:
        with theirs:
            given.write((command.stdin or "").encode())
            given.seek(0)
            line = theirs.fileno()
            leash = [sys.executable, "-I", "-S", str(LEASH), str(line), str(GRACE), command.path, *command.argv]
            try:
                process = subprocess.Popen(
                    leash, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                    cwd=command.cwd, env=command.env, pass_fds=(line,), start_new_session=True,
                )  # fmt: skip
            except (OSError, ValueError) as refused:
                raise Fail(f"{command.argv[0]!r} could not be started: {refused}") from None
        run = _Run(command, process, ours)
        try:
            yield run
        finally:
            run.end()


@dataclass
class _Run:
    """A running command, seen from the agent."""

    command: Command
    process: subprocess.Popen[bytes]
    line: socket.socket
    stdout: Capture = field(default_factory=Capture)
    stderr: Capture = field(default_factory=Capture)
    _said: bytes = b""
    _recent: bytes = b""

    def follow(self, context: WorkContext) -> None:
        """Read until the command has ended. Raises Fail when the task is cancelled before that."""
        note, look_at, leave_at = "", time.monotonic(), float("inf")
        with selectors.DefaultSelector() as waiting:
            waiting.register(_pipe(self.process.stdout), selectors.EVENT_READ, self.stdout)
            waiting.register(_pipe(self.process.stderr), selectors.EVENT_READ, self.stderr)
            waiting.register(self.line, selectors.EVENT_READ)
            while waiting.get_map() and (now := time.monotonic()) < leave_at:
                for key, _ in waiting.select(max(0.0, min(look_at, leave_at) - now)):
                    data = os.read(key.fd, 65536)
                    self._take(data, key.data)
                    if not data:
                        waiting.unregister(key.fileobj)
                        if key.fileobj is self.line:
                            leave_at = time.monotonic() + DRAIN
                if time.monotonic() >= look_at:
                    note = self._look(context, note)
                    look_at = time.monotonic() + LOOK_EVERY

    def _take(self, data: bytes, into: Capture | None) -> None:
        if into is None:
            self._said += data
        else:
            into.add(data)
            self._recent = (self._recent + data)[-RECENT:]

    def _look(self, context: WorkContext, told: str) -> str:
        """Tell the last line if it is news, unless nobody wants the work any more. Gives what was told last."""
        if context.is_cancelled():
            raise Fail("the task was cancelled, so the command was ended")
        note = _last_line(self._recent)
        if note and note != told:
            context.progress(note=note)
        return note

    def exit_code(self) -> int:
        """What the leash said of the end. Raises Fail if the command did not start."""
        said = self._facts()
        if "error" in said:
            raise Fail(f"{self.command.argv[0]!r} could not be started: {said['error']}")
        if "exit" not in said:
            raise RuntimeError("the process that watches over the command was killed, so the command was ended")
        return int(said["exit"])

    def end(self) -> None:
        """Let go of the leash, which ends what still runs; see to that here if the leash cannot."""
        with suppress(OSError):  # the leash may be gone
            self.line.shutdown(socket.SHUT_WR)
        try:
            self.process.wait(GRACE + 3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.returncode != 0:
            self._end_the_group()
        _pipe(self.process.stdout).close()
        _pipe(self.process.stderr).close()

    def _end_the_group(self) -> None:
        while data := self.line.recv(4096):  # unread, if an exception cut the reading short
            self._said += data
        with suppress(KeyError, ProcessLookupError, PermissionError):
            os.killpg(int(self._facts()["pid"]), signal.SIGKILL)

    def _facts(self) -> dict[str, str]:
        return dict(text.split(" ", 1) for text in self._said.decode().splitlines())


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("the process was started without a pipe")
    return stream


def _readable(data: bytes) -> str:
    """Text that Postgres can keep."""
    return data.decode(errors="replace").replace("\x00", "\ufffd")


def _last_line(data: bytes) -> str:
    """The last line that says something, in printable characters."""
    for line in reversed(data.decode(errors="replace").splitlines()):
        if shown := "".join(c if c.isprintable() else " " for c in line).strip():
            return shown[:NOTE]
    return ""
