"""Guarantee 10: old and new agents side by side lose nothing, and old ones go on under a schema that is newer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from chiffon.cli import main
from tests.e2e.agents import Agents
from tests.e2e.api_process import Apis
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.ledger_writer import LedgerWriter
from tests.e2e.load import SteadyLoad
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import eventually

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

FIRST = "0001"
"""The oldest revision of the ledger."""

OLD, NEW = "tests.e2e.deployments.old", "tests.e2e.deployments.new"

NEWER = """
ALTER TABLE tasks ADD COLUMN shade text NOT NULL DEFAULT 'grey';
UPDATE alembic_version SET version_num = '9999';
"""
"""A migration of a later version, which adds before anything is removed."""

END_THE_SESSIONS = """
SELECT application_name, pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'chiffon agent%'
"""


def test_a_rolling_change_of_work_types_and_parameters_loses_and_dead_letters_nothing(
    apis: Apis, agents: Agents, amqp_client: RawAmqp, diary: Diary, ledger: LedgerReader
) -> None:
    path = str(diary.path)
    old_api = apis.start(workers=OLD)
    old = agents.start_team("old-1", "old-2", workers=OLD)
    with SteadyLoad(old_api, "post.letter", {"path": path, "text": "old"}, every=0.3) as letters:
        eventually("the old version to be at work", lambda: len(diary.entries()) >= 5)
        new_api = apis.start(workers=NEW)
        registered = {"path": path, "text": "new", "registered": True}
        with (
            SteadyLoad(new_api, "post.letter", registered, every=0.3) as new_letters,
            SteadyLoad(new_api, "post.parcel", {"path": path, "grams": 7}, every=0.3) as parcels,
        ):
            agents.start("new-1", workers=NEW)
            eventually("both versions to have met", lambda: {"new, registered", "7 g"} <= set(diary.notes()))
            old[0].kill("SIGTERM")
            agents.start("new-2", workers=NEW)
            old[1].kill("SIGTERM")
            since = len(letters.accepted)
            eventually("old callers to be served by new agents", lambda: len(letters.accepted) >= since + 5)

    sent = letters.accepted + new_letters.accepted + parcels.accepted
    eventually("everything to be done", lambda: ledger.statuses() == {"completed": len(sent)})
    assert diary.has_each_once(sent)
    assert amqp_client.ready("dlx_queue") == 0
    assert ledger.rows("SELECT 1 FROM tasks WHERE give_backs > 0"), "no old agent has met newer work"


def test_old_agents_go_on_under_load_when_a_newer_version_migrates_the_ledger(
    api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    team = agents.start_team("first", "second", concurrency=2)
    with SteadyLoad(api, "test.append", diary.parameters(seconds=0.1)) as load:
        eventually("work to be under way", lambda: len(diary.entries()) >= 5)
        LedgerWriter(ledger.url).run(NEWER)
        ended = LedgerWriter(ledger.url).run(END_THE_SESSIONS)  # as a failover does: each has to find its way back
        assert {(f"chiffon agent {agent.agent_id}"[:63], True) for agent in team} <= set(ended)
        since = len(load.accepted)
        eventually("the load to go on", lambda: len(load.accepted) >= since + 20)

    eventually("everything to be done", lambda: ledger.statuses() == {"completed": len(load.accepted)})
    assert diary.has_each_once(load.accepted)


def test_an_old_agent_and_an_old_api_can_be_restarted_after_a_newer_version_has_migrated_the_ledger(
    apis: Apis, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    LedgerWriter(ledger.url).run(NEWER)
    api = apis.start()
    agents.start()

    task_id = api.dispatch("test.append", diary.parameters("done"))

    api.wait_for(task_id, "completed")
    assert diary.task_ids() == [task_id]


def test_migrations_go_down_and_up_again_while_work_runs_and_cost_nothing(
    api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    agents.start_team("first", "second", concurrency=2)
    with ThreadPoolExecutor(16) as clients:  # each process of the API looks at the schema, once
        list(clients.map(lambda _: api.get("/health/ready"), range(64)))
    with SteadyLoad(api, "test.append", diary.parameters(seconds=0.1)) as load:
        eventually("work to be under way", lambda: len(diary.entries()) >= 5)
        for step in ("downgrade", FIRST), ("upgrade",):
            said = CliRunner(env={"CHIFFON_DATABASE_URL": ledger.url}).invoke(main, ["db", *step])
            assert said.exit_code == 0, said.output
            since = len(load.accepted)
            eventually("the load to go on", lambda since=since: len(load.accepted) >= since + 20)

    eventually("everything to be done", lambda: ledger.statuses() == {"completed": len(load.accepted)})
    assert diary.has_each_once(load.accepted)
