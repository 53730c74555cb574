"""The `chiffon` command tells a user what is wrong in one message, and in its exit code."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from chiffon.cli import main
from chiffon.devstack import doctor, foreground
from chiffon.devstack.errors import MissingProgram, NotAllowed, ProcessFailed


@pytest.fixture
def run():
    return lambda *arguments, **environ: CliRunner(env=environ).invoke(main, list(arguments))


def test_every_command_is_listed_with_what_it_does(run) -> None:
    printed = run("--help").output
    for command in ("up", "demo", "db", "doctor"):
        assert f"\n  {command} " in printed


@pytest.mark.parametrize("command", [["up"], ["demo"], ["db", "upgrade"], ["db", "current"]])
def test_a_setting_that_is_wrong_is_named_and_nothing_begins(run, command) -> None:
    result = run(*command, CHIFFON_BROKER_URL="http://wrong")
    assert result.exit_code == 2
    assert result.stderr.startswith("chiffon: CHIFFON_BROKER_URL: must look like amqp://")


@pytest.mark.parametrize(
    ("error", "code"), [(MissingProgram("why"), 2), (NotAllowed("why"), 2), (ProcessFailed("why"), 1)]
)
def test_an_expected_error_is_one_message(run, monkeypatch, error, code) -> None:
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(foreground, "stay_up", fail)
    result = run("up")
    assert (result.exit_code, result.stderr) == (code, "chiffon: why\n")


def test_a_ledger_that_does_not_answer_is_one_message(run) -> None:
    result = run("db", "current", CHIFFON_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert result.exit_code == 1
    assert result.stderr.startswith("chiffon: Postgres does not answer")


def test_the_doctor_says_of_each_part_what_to_do(run) -> None:
    result = run(
        "doctor",
        CHIFFON_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        CHIFFON_BROKER_URL="amqp://127.0.0.1:1//",
    )
    assert result.exit_code == 1
    lines = {line.split()[1]: line for line in result.output.splitlines()[:] if line[:3] in {"ok ", "BAD"}}
    assert lines["Python"].startswith("ok ")
    assert lines["settings"].startswith("ok ")
    assert lines["broker"].startswith("BAD")
    assert "start it, or check CHIFFON_BROKER_URL" in lines["broker"]
    assert lines["database"].startswith("BAD")


def test_the_doctor_stops_at_settings_that_are_wrong() -> None:
    findings = list(doctor.examine({"CHIFFON_QUEUE_TYPE": "stream"}))
    assert [finding.subject for finding in findings] == ["Python", "settings"]
    assert not findings[-1].is_well


def test_the_doctor_knows_a_python_that_is_too_old() -> None:
    assert not next(doctor.examine({}, version=(3, 10))).is_well
