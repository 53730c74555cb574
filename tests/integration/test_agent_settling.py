"""Settling many at once: one that the ledger does not take costs the others nothing, and is not lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from chiffon.agent.commands import Finished
from chiffon.agent.life import Identity, Life
from chiffon.agent.reading import Reader
from chiffon.agent.run import Report
from chiffon.agent.settling import Settler
from chiffon.config import Settings
from chiffon.domain.tasks import Claim
from chiffon.domain.verdicts import Completed
from chiffon.domain.work import registry
from chiffon.ledger.settle import Settlement
from tests.bench import Bench

TROUBLE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.task_id = TG_ARGV[0] AND NEW.status = ANY(string_to_array(TG_ARGV[2], ',')) THEN
    RAISE EXCEPTION 'no' USING ERRCODE = TG_ARGV[1];
  END IF;
  RETURN NEW;
END $$;
"""


class Silence:
    """A ringer that rings nothing."""

    def ring(self, rings: Iterable[object]) -> None:
        """Forget them."""


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def settler(bench: Bench, pauses: list[float]) -> Iterator[Settler]:
    settings = Settings(database_url=bench.url)
    life = Life(bench.url, Identity("settler", 1, ("work_queue",), ("echo",), "0"))
    life.begin()
    reader = Reader(registry, {}, 1_000)
    yield Settler(settings, life, reader, Silence(), pause=pauses.append)  # type: ignore[arg-type]
    life.drop()


def finished(claim: Claim) -> Finished:
    """A run that came to its end."""
    verdict = Completed("1")
    settlement = Settlement(claim.task_id, claim.execution, verdict, caught=True)
    return Finished(settlement, Report(verdict), claim.trace_id, lambda _: None)


def refuse(bench: Bench, task_id: str, state: str, *statuses: str) -> None:
    """From here on Postgres says no, by an SQLSTATE, to a task's coming to one of these."""
    bench.sql(TROUBLE)
    bench.sql(
        "CREATE TRIGGER trouble BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION refuse"
        f"('{task_id}', '{state}', '{','.join(statuses)}')"
    )


def test_an_error_that_nobody_foresaw_keeps_the_end_until_it_has_passed(
    bench: Bench, settler: Settler, pauses: list[float]
) -> None:
    batch = [finished(bench.claimed()) for _ in range(4)]
    bad = batch[1]
    refuse(bench, bad.settlement.task_id, "XX000", "completed", "failed")
    assert {f.settlement.task_id for f, _ in settler.settle(batch)} == {
        f.settlement.task_id for f in batch if f is not bad
    }
    assert settler.settle([bad]) == []
    assert len(pauses) == 2
    assert bench.status(bad.settlement.task_id) == "running"
    bench.sql("DROP TRIGGER trouble ON tasks")
    [(settled, answer)] = settler.settle([bad])
    assert (settled, getattr(answer, "status", None)) == (bad, "completed")
    assert len(pauses) == 2


def test_data_that_is_refused_ends_the_task_as_failed(bench: Bench, settler: Settler) -> None:
    run = finished(bench.claimed())
    refuse(bench, run.settlement.task_id, "22000", "completed")
    [(settled, answer)] = settler.settle([run])
    assert (settled, getattr(answer, "status", None)) == (run, "failed")
