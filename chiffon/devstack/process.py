"""One program, in a session of its own, with a log file and a condition that says when it is ready."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from chiffon.devstack.errors import ProcessFailed
from chiffon.devstack.guardian import lives

TAIL_LINES = 25


class Process:
    """A child process that can be started again after it was stopped or killed.

    ``environment`` is added to the caller's own, out of which every ``CHIFFON_*`` variable has been taken: what
    a developer has exported must not steer a private stack. ``ready`` is asked until it says yes; it may raise
    OSError to say no. ``account`` is the user to run as, which only root may name. Durations are seconds.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        ready: Callable[[], bool] = lambda: True,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        account: str | None = None,
        start_timeout: float = 60,
        stop_timeout: float = 20,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [str(part) for part in command]
        self._ready = ready
        self._environment = dict(environment or {})
        self._folder = folder
        self._account = account
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._stop_signal = stop_signal
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id. Raises ProcessFailed when it was not started."""
        if self._popen is None:
            raise ProcessFailed(f"{self.name} was not started")
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs or was never started."""
        return None if self._popen is None else self._popen.poll()

    def is_running(self) -> bool:
        """Tell whether the program has been started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def launch(self) -> None:
        """Start the program without waiting until it is ready. Nothing happens if it runs already."""
        if self.is_running():
            return
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=inherited_environment() | self._environment,
                cwd=self._folder,
                start_new_session=True,  # Ctrl-C is for the owner, who then stops its children in order
                user=self._account,
                group=None if self._account is None else pwd.getpwnam(self._account).pw_gid,
                extra_groups=None if self._account is None else [],
            )

    def start(self) -> None:
        """Start the program and wait until it is ready. Raises ProcessFailed."""
        self.launch()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until the program is ready. Raises ProcessFailed when it ends first or takes too long."""
        deadline = time.monotonic() + self._start_timeout
        while time.monotonic() < deadline:
            if not self.is_running():
                raise ProcessFailed(f"{self.name} ended at once with {self.exit_code}\n{self.tail()}")
            with contextlib.suppress(OSError):
                if self._ready():
                    return
            time.sleep(0.05)
        self.kill()
        raise ProcessFailed(f"{self.name} was not ready after {self._start_timeout:g} s\n{self.tail()}")

    def ask_to_stop(self) -> None:
        """Send the stop signal, and do not wait."""
        self.signal(self._stop_signal)
        self.resume()

    def stop(self) -> None:
        """Ask the program to end, and end it with its descendants if it has not after the stop timeout."""
        if self._popen is None:
            return
        self.ask_to_stop()
        try:
            self._popen.wait(self._stop_timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the program and everything it started with SIGKILL, as a crash would; return when it is gone."""
        if self._popen is None:
            return
        doomed = self._family()
        for process in doomed:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._popen.wait()
        while any(lives(process) for process in doomed):
            time.sleep(0.01)

    def pause(self) -> None:
        """Stop it in its tracks (SIGSTOP), children included: it keeps its connections and answers nothing."""
        stopping = self._family()
        for process in stopping:
            with contextlib.suppress(psutil.Error):
                process.suspend()
        until = time.monotonic() + 1.0
        while any(map(_goes_on, stopping)) and time.monotonic() < until:  # on a busy machine it may answer meanwhile
            time.sleep(0.001)

    def resume(self) -> None:
        """Let it go on after a pause."""
        for process in self._family():
            with contextlib.suppress(psutil.Error):
                process.resume()

    def signal(self, number: signal.Signals) -> None:
        """Send one signal to the program itself, not to its children."""
        if self.is_running():
            os.kill(self.pid, number)

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Return the last lines of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _family(self) -> list[psutil.Process]:
        if not self.is_running():
            return []
        try:
            leader = psutil.Process(self.pid)
            return [leader, *leader.children(recursive=True)]
        except psutil.Error:
            return []


def _goes_on(process: psutil.Process) -> bool:
    """Whether it is there and has not stopped."""
    try:
        return process.status() not in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    except psutil.Error:
        return False


def inherited_environment() -> dict[str, str]:
    """Return the environment of this process without its ``CHIFFON_*`` settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CHIFFON_")}
