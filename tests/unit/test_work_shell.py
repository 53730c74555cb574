"""`shell.run`: what it may start, and what it hands back."""

from __future__ import annotations

import json
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest

from chiffon import Fail, settings
from chiffon.domain.errors import InvalidParameters
from chiffon.domain.work import registry
from tests.unit.contexts import context
from workers.command import Capture, execute
from workers.shell import CommandFailed, prepare, run


def program(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\necho {says}\n")
    file.chmod(0o755)
    return file


def test_output_and_exit_code_are_the_result() -> None:
    outcome = run(context(), ["sh", "-c", "echo out; echo err >&2"])

    assert outcome.pop("duration_seconds") > 0  # type: ignore[misc]
    assert outcome == {"exit_code": 0, "stdout": "out\n", "stderr": "err\n", "truncated": False}


def test_no_shell_reads_the_arguments() -> None:
    assert run(context(), ["echo", "$HOME; ls *"])["stdout"] == "$HOME; ls *\n"


def test_stdin_is_read_and_is_empty_when_not_given() -> None:
    assert run(context(), ["cat"], stdin="ein Gruß")["stdout"] == "ein Gruß"
    assert run(context(), ["cat"])["stdout"] == ""


def test_input_that_nobody_reads_does_no_harm() -> None:
    assert run(context(), ["true"], stdin="x" * 1_000_000)["exit_code"] == 0


def test_the_command_starts_in_the_folder_asked_for(tmp_path: Path) -> None:
    assert run(context(), ["pwd"], cwd=str(tmp_path))["stdout"].strip() == str(tmp_path)


def test_a_relative_program_is_looked_for_in_that_folder(tmp_path: Path) -> None:
    program(tmp_path / "bin", "greet", "hello")

    assert run(context(), ["./bin/greet"], cwd=str(tmp_path))["stdout"] == "hello\n"


def test_another_exit_code_than_0_fails_with_the_last_lines() -> None:
    with pytest.raises(CommandFailed, match=r"'sh' ended with exit code 3:\nline 11\n(.*\n)*line 30$"):
        run(context(), ["sh", "-c", "for i in $(seq 30); do echo line $i >&2; done; exit 3"])


def test_an_exit_code_that_is_not_checked_is_a_result() -> None:
    assert run(context(), ["sh", "-c", "exit 3"], check=False)["exit_code"] == 3


def test_a_signal_shows_as_a_negative_exit_code() -> None:
    assert run(context(), ["sh", "-c", "kill -9 $$"], check=False)["exit_code"] == -9
    with pytest.raises(CommandFailed, match="was ended by signal 9"):
        run(context(), ["sh", "-c", "kill -9 $$"])


@pytest.mark.parametrize(
    ("argv", "cwd", "why"),
    [
        (["no-such-program"], None, "there is no program 'no-such-program'"),
        (["/no/such/program"], None, "could not be started: No such file"),
        (["/etc/passwd"], None, "could not be started: Permission denied"),
        ([""], None, "there is no program ''"),
        (["true"], "/no/such/folder", "/no/such/folder"),
        (["true", "a\0b"], None, "null byte"),
    ],
)
def test_what_cannot_start_fails_for_good(argv: list[str], cwd: str | None, why: str) -> None:
    with pytest.raises(Fail, match=why):
        run(context(), argv, cwd=cwd)


def test_an_empty_command_does_not_fit() -> None:
    with pytest.raises(InvalidParameters, match="/parameters/argv"):
        registry.get("shell.run").validate({"argv": []})


def test_signals_that_the_agent_ignores_reach_the_command() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run(context(), ["sh", "-c", "kill -INT $$"], check=False)["exit_code"] == -signal.SIGINT
    finally:
        signal.signal(signal.SIGINT, before)


# The environment


def test_the_child_sees_no_setting_and_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    private = {
        "CHIFFON_API_KEYS": "k", "CHIFFON_ANYTHING": "k", "CELERY_BROKER_URL": "k", "FLOWER_BASIC_AUTH": "k",
        "PGPASSWORD": "k", "MY_QUEUE": "amqp://u:p@h//", "MY_DATA": "postgresql+psycopg2://u:p@h/d",
    }  # fmt: skip
    for name, value in {**private, "HARMLESS": "yes"}.items():
        monkeypatch.setenv(name, value)

    seen = dict(line.split("=", 1) for line in run(context(), ["env"])["stdout"].splitlines())

    assert not private.keys() & seen.keys()
    assert seen["HARMLESS"] == "yes"


def test_the_caller_can_add_variables() -> None:
    assert run(context(), ["sh", "-c", "echo $COLOUR"], env={"COLOUR": "red"})["stdout"] == "red\n"


# What may run


@pytest.fixture
def agent(tmp_path: Path) -> dict[str, str]:
    """An agent's environment with two programs on its PATH."""
    program(tmp_path / "bin", "git", "the real git")
    program(tmp_path / "bin", "gcc", "the real gcc")
    return {"PATH": str(tmp_path / "bin")}


@pytest.mark.parametrize("allow", ["git", "g?t", "ls,git", "{}/bin/git", "{}/bin/*", "*"])
def test_an_allowed_program_runs_by_name_and_by_path(allow: str, agent: dict[str, str], tmp_path: Path) -> None:
    patterns = tuple(allow.format(tmp_path).split(","))
    for name in ("git", f"{tmp_path}/bin/git", f"{tmp_path}//bin/./git"):
        command = prepare([name], allow=patterns, agent=agent, env={})
        assert execute(command, context(), max_result=10_000)["stdout"] == "the real git\n"


@pytest.mark.parametrize("allow", ["", "gcc", "git*,./git", "{}/git", "{}/*", "/git", "bin/git", "*/git", "GIT"])
def test_a_program_that_is_not_allowed_is_refused_and_the_setting_named(
    allow: str, agent: dict[str, str], tmp_path: Path
) -> None:
    patterns = tuple(p for p in allow.format(tmp_path).split(",") if p)
    name = f"{program(tmp_path / 'evil', 'git', 'evil')}" if "git*" in allow else "git"
    with pytest.raises(Fail, match="CHIFFON_SHELL_ALLOW"):
        prepare([name], allow=patterns, agent=agent, env={})


@pytest.mark.parametrize(
    "name",
    [
        "{}/evil/git",
        "{}/bin/../evil/git",
        "../evil/git",
        "./evil/git",
        "evil/git",
        "{}/bin/../bin/git",
        "git/",
    ],
)
def test_another_file_of_an_allowed_name_is_refused(name: str, agent: dict[str, str], tmp_path: Path) -> None:
    program(tmp_path / "evil", "git", "evil")
    with pytest.raises(Fail, match="CHIFFON_SHELL_ALLOW"):
        prepare([name.format(tmp_path)], allow=("git", f"{tmp_path}/bin/*"), agent=agent, env={}, cwd=str(tmp_path))


@pytest.mark.parametrize("variable", ["PATH", "LD_PRELOAD", "BASH_ENV", "PYTHONPATH", "GIT_SSH_COMMAND"])
def test_an_allowed_program_is_not_turned_into_another_by_its_environment(
    variable: str, agent: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(Fail, match=f"{variable} may not be given while CHIFFON_SHELL_ALLOW"):
        prepare(["git"], allow=("git",), agent=agent, env={variable: str(tmp_path)})


def test_the_callers_path_does_not_choose_the_program(agent: dict[str, str], tmp_path: Path) -> None:
    program(tmp_path / "evil", "git", "evil")
    command = prepare(["git"], allow=("*",), agent=agent, env={"PATH": str(tmp_path / "evil")})

    assert command.path == str(tmp_path / "bin" / "git")


def test_the_setting_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIFFON_SHELL_ALLOW", "echo, ls")
    settings.cache_clear()
    try:
        assert run(context(), ["echo", "hi"])["stdout"] == "hi\n"
        with pytest.raises(Fail, match="CHIFFON_SHELL_ALLOW allows: echo, ls"):
            run(context(), ["sh", "-c", "echo hi"])
    finally:
        settings.cache_clear()


# Output


def test_what_is_not_text_becomes_text_that_postgres_keeps() -> None:
    outcome = run(context(), ["printf", r"a\000b\377c"])

    assert outcome["stdout"] == "a\ufffdb\ufffdc"


def test_of_a_long_output_the_beginning_and_the_end_are_kept() -> None:
    outcome = run(context(), ["sh", "-c", "echo first; seq 200000; echo last"])

    assert outcome["truncated"]
    assert outcome["stdout"].startswith("first\n1\n2\n")
    assert outcome["stdout"].endswith("200000\nlast\n")
    assert "bytes left out ...]" in outcome["stdout"]
    assert 250_000 < len(outcome["stdout"]) < 270_000


@pytest.mark.parametrize("byte", ["a", r"\001", r"\377", '"'])
def test_whatever_the_output_the_result_has_room(byte: str) -> None:
    script = f"head -c 1000000 /dev/zero | tr '\\000' '{byte}' | tee /dev/stderr"
    command = prepare(["sh", "-c", script], allow=("*",), agent=os.environ, env={})

    outcome = execute(command, context(), max_result=100_000)

    assert outcome["truncated"]
    assert 50_000 < len(json.dumps(outcome)) <= 100_000


def test_a_capture_says_how_much_it_left_out() -> None:
    capture = Capture(keep=4)
    for piece in (b"ab", b"cdef", b"ghijklmnopqrst", b"uvwxyz"):
        capture.add(piece)

    assert capture.text(1000) == ("abcd\n[... 18 bytes left out ...]\nwxyz", True)


def test_a_capture_that_is_just_full_is_whole() -> None:
    capture = Capture(keep=4)
    capture.add(b"abcdefgh")

    assert capture.text(1000) == ("abcdefgh", False)


def test_the_last_line_is_told_while_the_command_runs(tmp_path: Path) -> None:
    told: list[str] = []

    def tell(note: str) -> None:
        told.append(note)
        (tmp_path / note.split()[-1]).touch()

    script = (
        "for i in one two; do echo noise; printf '  line \\t'$i'\\n\\n'; until [ -e $i ]; do sleep 0.02; done; done"
    )
    run(context(tell), ["sh", "-c", script], cwd=str(tmp_path))

    assert told == ["line  one", "line  two"]


def test_a_chatty_command_is_told_of_twice_a_second_at_most(tmp_path: Path) -> None:
    told: list[float] = []

    def tell(_: str) -> None:
        told.append(time.monotonic())
        if len(told) == 3:
            (tmp_path / "enough").touch()

    run(context(tell), ["sh", "-c", "i=0; until [ -e enough ]; do i=$((i+1)); echo $i; done"], cwd=str(tmp_path))

    assert len(told) >= 3
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(told))
