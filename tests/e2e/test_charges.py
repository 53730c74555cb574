"""What a run costs its task is written down, however it ends and whatever it takes along."""

from __future__ import annotations

import pytest

from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.waiting import eventually

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_work_that_ends_its_agent_at_once_is_charged_from_the_second_time_on(
    pool: str, api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    """At the first time nobody could say that it had begun; a task that came back so is marked before it begins."""
    task_id = api.dispatch("test.kill_agent", {"path": str(diary.path)})

    def charged() -> int:
        row = ledger.task(task_id)
        return int(row["agent_deaths"]) if row is not None else 0

    for life in range(3):
        agent = agents.launch(f"life{life}", pool=pool, takeover_grace=1)
        eventually("it to be killed", lambda agent=agent: agent.container.exit_code is not None, within=40)
    agents.launch("last", pool=pool, takeover_grace=1)
    eventually("two deaths to be charged", lambda: charged() >= 2, within=40)


def test_a_timeout_is_run_again_where_the_work_type_says_so(
    api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    agents.start(pool="prefork")
    task_id = api.dispatch("test.too_slow_at_first", {"path": str(diary.path)})
    api.wait_for(task_id, "completed")
    assert ledger.outcomes(task_id) == ["retried", "completed"]
    assert len(diary.entries(task_id)) == 2
