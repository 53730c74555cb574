"""Guarantee 10: old and new agents side by side lose nothing."""

from __future__ import annotations

import pytest

from tests.e2e.agents import Agents
from tests.e2e.api_process import Apis
from tests.e2e.diary import Diary
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.load import SteadyLoad
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import eventually

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

OLD, NEW = "tests.e2e.deployments.old", "tests.e2e.deployments.new"


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
