"""Real work through a whole stack, each outcome compared with what was expected of it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from chiffon.devstack.client import ApiClient, Task
from chiffon.devstack.errors import DevstackError
from chiffon.devstack.foreground import with_stack
from chiffon.devstack.programs import Access
from chiffon.devstack.screen import Screen
from chiffon.devstack.stack import Stack

BREAK = "CHIFFON_DEMO_BREAK"
"""For the demo's own test: `sha256`, `http`, `echo` or `fail` makes it expect the wrong thing of that work."""

DOCUMENTS = Path("docs")


@dataclass(frozen=True)
class Trial:
    """One dispatch and what must come of it; ``family`` is what BREAK names."""

    family: str
    title: str
    dispatch: Mapping[str, Any]
    status: str
    is_expected: Callable[[Any], bool]
    """Asked about the result."""

    @property
    def leaves_a_letter(self) -> bool:
        """Whether a dead letter is expected."""
        return self.status == "failed"


def run(environ: Mapping[str, str], screen: Screen) -> bool:
    """Bring a stack up, put it through every trial, show the outcomes; tell whether all were as expected.

    Stopped by a signal it tells that they were not. Raises DevstackError.
    """
    verdicts = [False]

    def try_all(stack: Stack, access: Access) -> None:
        trials = all_trials(access, DOCUMENTS)
        outcomes = perform(trials, ApiClient(access), screen)
        stack.check()
        judged = [judge(trial, task, environ.get(BREAK, "")) for trial, task in outcomes]
        columns = ["", "Work", "Status", "Agent", "Attempts", "Seconds", "Trace id"]
        screen.table("What came of it", columns, [row for _, row in judged])
        verdicts[:] = [is_right for is_right, _ in judged]
        wrong = verdicts.count(False)
        screen.say(f"NOT as expected: {wrong} of {len(verdicts)}." if wrong else "Every outcome is the expected one.")

    with_stack(environ, screen, try_all)
    return all(verdicts)


def perform(trials: list[Trial], client: ApiClient, screen: Screen) -> list[tuple[Trial, Task]]:
    """Have everything done, and what failed done again from its dead letter; return each trial with its end."""
    with screen.step(f"{len(trials)} tasks dispatched"):
        accepted = [client.dispatch(trial.dispatch) for trial in trials]
    with screen.step("All of them ended"):
        ended = [(trial, client.wait_for_end(task_id)) for trial, task_id in zip(trials, accepted, strict=True)]
    with screen.step("The failed one replayed from its dead letter"):
        again = [
            (failing_trial("the same, replayed"), replay(client, task))
            for trial, task in ended
            if trial.leaves_a_letter
        ]
    return ended + again


def all_trials(access: Access, documents: Path) -> list[Trial]:
    """Return the demo's work: digests, a request, echoes of each priority, and one that fails."""
    files = sorted(path for path in documents.rglob("*") if path.is_file())
    if not files:
        raise DevstackError(f"the demo computes the SHA-256 of the files under {documents}/, and there are none here")
    return [
        *(digest_trial(path.resolve(), path.as_posix()) for path in files),
        http_trial(f"{access.api_url}/openapi.json"),
        *(echo_trial(priority) for priority in (1, 2, 3, 4, 5)),
        failing_trial("fail"),
    ]


def digest_trial(path: Path, title: str) -> Trial:
    """A command's SHA-256 of a file must be Python's."""
    program = ["sha256sum"] if shutil.which("sha256sum") else ["shasum", "-a", "256"]
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    return Trial(
        "sha256",
        f"shell.run {program[0]} {title}",
        {"work_type": "shell.run", "parameters": {"argv": [*program, str(path)]}},
        "completed",
        lambda result: result["exit_code"] == 0 and result["stdout"].split()[0] == expected,
    )


def http_trial(url: str) -> Trial:
    """The API's own description must be there to fetch."""
    return Trial(
        "http",
        "http.request GET /openapi.json",
        {"work_type": "http.request", "parameters": {"method": "GET", "url": url}},
        "completed",
        lambda result: result["status"] == 200 and "openapi" in result["body"],
    )


def echo_trial(priority: int) -> Trial:
    """What goes in must come out, whatever its priority."""
    text = f"Hello at priority {priority}, été, 你好"
    return Trial(
        "echo",
        f"echo, priority {priority}",
        {"work_type": "echo", "parameters": {"input": text}, "priority": priority},
        "completed",
        lambda result: bool(result == {"output": text}),
    )


def failing_trial(title: str) -> Trial:
    """What says no must be `failed`, and have no result."""
    return Trial(
        "fail",
        title,
        {"work_type": "fail", "parameters": {"message": "this one was meant to fail"}},
        "failed",
        lambda result: result is None,
    )


def replay(client: ApiClient, task: Task) -> Task:
    """Replay a failed task from its dead letter; return it when it has failed again and is a dead letter again."""
    letter = client.wait_for_dead_letter(task["task_id"])
    client.replay_dead_letter(letter)
    again = client.wait_for_end(task["task_id"], executions=len(task["executions"]) + 1)
    client.wait_for_dead_letter(task["task_id"], after=letter)
    return again


def judge(trial: Trial, task: Task, broken: str) -> tuple[bool, list[str]]:
    """Return whether the outcome is the expected one, and the row that shows it."""
    is_right = task["status"] == trial.status and _has_expected_result(trial, task) != (trial.family == broken)
    mark = "✓" if is_right else "✗"
    cells = (trial.title, task["status"], task["agent_id"], task["attempts"], _seconds(task), task["trace_id"])
    return is_right, [mark, *map(str, cells)]


def _has_expected_result(trial: Trial, task: Task) -> bool:
    try:
        return trial.is_expected(task["result"])
    except (AttributeError, LookupError, TypeError):  # a result of another shape is not the expected one
        return False


def _seconds(task: Task) -> str:
    if not task["started_at"] or not task["finished_at"]:
        return "-"
    started, finished = (datetime.fromisoformat(task[name]) for name in ("started_at", "finished_at"))
    return f"{(finished - started).total_seconds():.2f}"
