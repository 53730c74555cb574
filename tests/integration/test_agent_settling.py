"""Settling many at once: one that the ledger does not take costs the others nothing, and is not lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from chiffon.agent import settling
from chiffon.agent.commands import Finished
from chiffon.agent.life import Identity, Life
from chiffon.agent.portions import MOST_BYTES
from chiffon.agent.reading import Reader
from chiffon.agent.run import ChordPart, Draft, Report
from chiffon.agent.settling import TRIES, Settler
from chiffon.config import Settings
from chiffon.domain import ids
from chiffon.domain.errors import LedgerUnavailable
from chiffon.domain.tasks import Claim
from chiffon.domain.verdicts import Completed
from chiffon.domain.work import registry
from chiffon.ledger.effects import AFTER_END
from chiffon.ledger.settle import Settlement, settle
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


def large(claim: Claim, size: int) -> Finished:
    """A run whose result is so long."""
    run = finished(claim)
    return replace(run, settlement=replace(run.settlement, verdict=Completed(f'"{"x" * (size - 2)}"')))


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


def test_what_takes_postgres_too_long_together_is_settled_in_parts(
    bench: Bench, settler: Settler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(cursor: Any, settlements: Sequence[Settlement], **more: Any) -> Any:
        if len(settlements) > 3:
            raise LedgerUnavailable("it was cut")
        return settle(cursor, settlements, **more)

    monkeypatch.setattr(settling, "settle", slow)
    left, cuts = [finished(bench.claimed()) for _ in range(20)], 0
    for _ in range(20):
        try:
            done = [run for run, _ in settler.settle(left)] if left else []
        except LedgerUnavailable:
            cuts += 1
            settler._life.begin()
        else:
            left = [run for run in left if run not in done]
    assert left == []
    assert 3 <= cuts <= 9
    monkeypatch.undo()
    settled = [len(settler.settle([finished(bench.claimed()) for _ in range(8)])) for _ in range(8)]
    assert settled[-1] == 8  # it is as it was


def test_of_large_results_no_more_go_together_than_postgres_takes_in_a_moment(bench: Bench, settler: Settler) -> None:
    size = MOST_BYTES // 3
    batch = [large(bench.claimed(), size) for _ in range(4)]
    assert len(settler.settle(batch)) == 3
    assert len(settler.settle(batch[3:])) == 1
    assert len(settler.settle([large(bench.claimed(), MOST_BYTES + 1)])) == 1


def test_a_large_result_whose_row_somebody_holds_lets_the_others_go_first(bench: Bench, settler: Settler) -> None:
    held, other = large(bench.claimed(), MOST_BYTES), finished(bench.claimed())
    with bench.transaction() as cursor:
        cursor.execute("SELECT 1 FROM tasks WHERE task_id = %s FOR UPDATE", (held.settlement.task_id,))
        assert settler.settle([held, other]) == []
        assert [run for run, _ in settler.settle([held, other])] == [other]
    assert [run for run, _ in settler.settle([held])] == [held]


def test_an_end_that_a_bug_keeps_from_being_written_down_becomes_a_failure_at_last(
    bench: Bench, settler: Settler
) -> None:
    run = finished(bench.claimed())
    run.report.chord_parts.append(ChordPart("g", run.settlement.task_id, "SUCCESS", {}, {"a": 1}))  # type: ignore[arg-type]
    assert [settler.settle([run]) for _ in range(TRIES - 1)] == [[]] * (TRIES - 1)
    [(settled, answer)] = settler.settle([run])
    assert (settled, getattr(answer, "status", None)) == (run, "failed")
    assert "can't adapt" in bench.row(run.settlement.task_id)["error"]["message"]


def draft(name: Any = "echo", task_id: Any = None, **headers: Any) -> Draft:
    """A step that a run would publish: an echo of 1."""
    said = {"id": task_id or ids.new_task_id(), "task": name, **headers}
    return Draft(said, [], {"input": 1}, {"errbacks": [{"task": "echo", "args": []}]}, None, None)


def set_off(bench: Bench, settler: Settler, *drafts: Draft) -> list[dict[str, Any]]:
    """The rows of what a completed run set off, its own aside."""
    run = finished(bench.claimed())
    run.report.drafts.extend(drafts)
    before = {task_id for (task_id,) in bench.sql("SELECT task_id FROM tasks")}
    [(_, answer)] = settler.settle([run])
    assert getattr(answer, "status", None) == "completed"
    born = bench.sql("SELECT task_id FROM tasks WHERE work_type <> %s ORDER BY created_at, task_id", AFTER_END)
    rows = [bench.row(task_id) for (task_id,) in born if task_id not in before]
    assert all(row["canvas"]["parent_id"] == run.settlement.task_id for row in rows)
    return rows


def ended_with(bench: Bench, row: dict[str, Any], reason: str) -> bool:
    """Whether a step is dead-lettered, in the ledger and for who waits for it, and its errback seen to."""
    assert (row["status"], row["dead_letter_owed"]) == ("dead_lettered", True)
    assert (bench.result(row["task_id"]) or ("",))[0] == "FAILURE"
    seen_to = bench.sql(
        "SELECT 1 FROM tasks WHERE work_type = %s AND parameters ->> 'task_id' = %s", AFTER_END, row["task_id"]
    )
    return reason in row["error"]["message"] and (bool(seen_to) or row["work_type"] == "chiffon.unreadable")


@pytest.mark.parametrize(
    ("step", "work_type"),
    [
        (draft(eta="tomorrow"), "echo"),
        (draft(request_id=""), "echo"),
        (draft(name="no\x00name"), "chiffon.unreadable"),
        (draft(task_id="x" * 300), "chiffon.unreadable"),
        (draft(mine=2**64), "echo"),
        (replace(draft(), routing_key="q" * 256), "echo"),
    ],
    ids=["a time that is none", "a key that is none", "no name", "no id", "no number of AMQP's", "no queue of AMQP's"],
)
def test_a_step_that_cannot_be_published_is_dead_lettered_with_the_reason(
    bench: Bench, settler: Settler, step: Draft, work_type: str
) -> None:
    [row, good] = sorted(set_off(bench, settler, step, draft()), key=lambda row: str(row["status"]))
    assert row["work_type"] == work_type
    assert ended_with(bench, row, "it cannot be published")
    assert good["status"] == "pending"


def test_a_step_whose_id_another_task_has_is_dead_lettered_under_an_id_of_its_own(
    bench: Bench, settler: Settler
) -> None:
    taken = bench.born(parameters={"input": "something else"})
    [row] = set_off(bench, settler, draft(task_id=taken))
    assert ended_with(bench, row, f"its id {taken} belongs to a task with another payload")


def test_a_step_that_is_there_already_is_not_taken_twice(bench: Bench, settler: Settler) -> None:
    step = draft()
    [row] = set_off(bench, settler, step, step)
    assert row["status"] == "pending"
    assert set_off(bench, settler, step) == []


def test_a_step_with_the_key_of_another_task_takes_its_end(bench: Bench, settler: Settler) -> None:
    first, second = set_off(bench, settler, draft(request_id="r"), draft(request_id="r"))
    assert {first["follows"], second["follows"]} == {None, first["task_id"] if second["follows"] else second["task_id"]}
    [third] = set_off(bench, settler, draft(request_id="r"))
    assert third["follows"] is not None


def test_a_step_with_the_key_of_other_work_is_dead_lettered(bench: Bench, settler: Settler) -> None:
    holder = bench.born(request_id="r")
    [row] = set_off(bench, settler, draft(request_id="r"))
    assert ended_with(bench, row, f"its request_id belongs to task {holder}")


def test_what_a_run_has_deferred_is_seen_to_after_its_end(bench: Bench, settler: Settler) -> None:
    run = finished(bench.claimed(bench.born(canvas={"embed": {"errbacks": [{"task": "echo"}]}})))
    run.report.deferred = True
    settler.settle([run])
    seen_to = bench.sql("SELECT parameters ->> 'task_id' FROM tasks WHERE work_type = %s", AFTER_END)
    assert seen_to == [(run.settlement.task_id,)]


def test_data_that_is_refused_ends_the_task_as_failed(bench: Bench, settler: Settler) -> None:
    run = finished(bench.claimed())
    refuse(bench, run.settlement.task_id, "22000", "completed")
    [(settled, answer)] = settler.settle([run])
    assert (settled, getattr(answer, "status", None)) == (run, "failed")
