"""The demo's judgement: what it expects of each piece of work, and what it says of another outcome."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from chiffon.devstack.demo import Trial, all_trials, digest_trial, echo_trial, failing_trial, http_trial, judge
from chiffon.devstack.errors import DevstackError
from chiffon.devstack.programs import Access

ACCESS = Access("http://127.0.0.1:1", "key", "amqp://", "postgresql://", "http://127.0.0.1:2", "a:b")


def task(status: str, result: Any, **changes: Any) -> dict[str, Any]:
    return {
        "status": status,
        "result": result,
        "agent_id": "agent1@here",
        "attempts": 1,
        "started_at": "2026-01-01T00:00:00Z",
        "finished_at": "2026-01-01T00:00:01.5Z",
        "trace_id": "0" * 32,
    } | changes


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "one.md"
    path.write_text("# One\n")
    return path


def expected_of(trial: Trial, document: Path) -> dict[str, Any]:
    digest = hashlib.sha256(document.read_bytes()).hexdigest()
    return {
        "sha256": task("completed", {"exit_code": 0, "stdout": f"{digest}  {document}\n", "stderr": ""}),
        "http": task("completed", {"status": 200, "headers": {}, "body": '{"openapi": "3.1.0"}'}),
        "echo": task("completed", {"output": trial.dispatch["parameters"].get("input")}),
        "fail": task("failed", None),
    }[trial.family]


def test_every_family_of_work_is_tried_and_echo_at_each_priority(document: Path) -> None:
    trials = all_trials(ACCESS, document.parent)
    assert [trial.family for trial in trials] == ["sha256", "http", *["echo"] * 5, "fail"]
    assert [trial.dispatch["priority"] for trial in trials if trial.family == "echo"] == [1, 2, 3, 4, 5]


def test_without_documents_there_is_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(DevstackError, match="there are none here"):
        all_trials(ACCESS, tmp_path)


def test_the_expected_outcome_is_right_and_the_same_is_wrong_when_its_family_is_broken(document: Path) -> None:
    for trial in all_trials(ACCESS, document.parent):
        outcome = expected_of(trial, document)
        assert judge(trial, outcome, "")[0]
        assert judge(trial, outcome, "another")[0]
        assert not judge(trial, outcome, trial.family)[0]


def test_another_digest_is_wrong(document: Path) -> None:
    outcome = task("completed", {"exit_code": 0, "stdout": "0" * 64, "stderr": ""})
    assert not judge(digest_trial(document, "one.md"), outcome, "")[0]


@pytest.mark.parametrize("result", [None, {}, [], {"status": 404, "body": "openapi"}, {"status": 200, "body": ""}])
def test_another_answer_is_wrong(result: Any) -> None:
    assert not judge(http_trial("http://127.0.0.1:1/openapi.json"), task("completed", result), "")[0]


def test_work_that_should_fail_and_did_not_is_wrong() -> None:
    assert not judge(failing_trial("fail"), task("completed", None), "")[0]


def test_a_task_that_never_started_is_shown_without_a_duration() -> None:
    is_right, row = judge(echo_trial(3), task("dead_lettered", None, started_at=None), "")
    assert not is_right
    assert row == ["✗", "echo, priority 3", "dead_lettered", "agent1@here", "1", "-", "0" * 32]
