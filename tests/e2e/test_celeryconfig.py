"""The user's own `celeryconfig` may say what it likes: what the guarantees need is set all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.waiting import eventually

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

CONTRARY = """
accept_content = ["pickle"]
broker_connection_max_retries = 1
broker_connection_retry = False
broker_url = "amqp://nobody@127.0.0.1:1//"
result_backend = "rpc://"
result_serializer = "pickle"
task_acks_late = False
task_acks_on_failure_or_timeout = False
task_always_eager = True
task_create_missing_queues = True
task_default_queue = "celery"
task_protocol = 1
task_reject_on_worker_lost = True
task_serializer = "pickle"
task_track_started = True
worker_cancel_long_running_tasks_on_connection_loss = True
worker_deduplicate_successful_tasks = True
worker_pool_start_method = "spawn"
"""


def test_a_celeryconfig_that_contradicts_every_guarantee_takes_none_away(
    api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader, tmp_path: Path
) -> None:
    (tmp_path / "celeryconfig.py").write_text(CONTRARY)
    path = str(diary.path)
    doomed = agents.start("doomed", folder=tmp_path)

    deadly = api.dispatch("test.die", {"path": path, "how": "SIGKILL"})
    api.wait_for(deadly, "dead_lettered")
    again = api.dispatch("test.append_at_second_attempt", {"path": path})
    api.wait_for(again, "completed")
    assert ledger.outcomes(again) == ["retried", "completed"]

    slow = api.dispatch("test.append_slow_at_first", {"path": path})
    eventually("the run to be under way", lambda: diary.entries(slow))
    doomed.kill()
    agents.start("heir", folder=tmp_path)
    api.wait_for(slow, "completed")
    assert ledger.outcomes(slow) == ["agent_lost", "completed"]
    assert [entry.attempt for entry in diary.entries(slow)] == [1, 2]
