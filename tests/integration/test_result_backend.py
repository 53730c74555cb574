"""A stock Celery application keeps its results in Postgres, with nothing else of Chiffon."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
import pytest
from celery import Celery, chain, group
from celery.exceptions import TimeoutError as CeleryTimeout
from kombu.exceptions import EncodeError

from tests import plain_celery as plain
from tests.conftest import started
from tests.e2e.waiting import eventually
from tests.plain_worker import plain_client, plain_worker
from tests.services import Services

PATIENCE = 20.0


class Running(NamedTuple):
    """A worker's broker, the database that it has made its own, and a client of both."""

    client: Celery
    database: str

    def ask(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self.database)
        with connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            rows = cursor.fetchall() if cursor.description else []
        connection.close()
        return rows


@pytest.fixture(scope="module")
def worker(services: Services, tmp_path_factory: pytest.TempPathFactory, pool: str) -> Iterator[tuple[str, str]]:
    """A worker on a virgin database, for all the tests of this module; its broker's and its database's URL."""
    if services.given_broker is None:
        started(lambda: services.rabbitmq)
    started(lambda: services.postgres)
    with (
        services.fresh_broker() as broker,
        services.fresh_database("template1") as database,
        plain_worker(tmp_path_factory.mktemp("plain"), broker, f"chiffon+{database}", pool),
    ):
        yield broker, database


@pytest.fixture
def running(worker: tuple[str, str]) -> Iterator[Running]:
    broker, database = worker
    with plain_client(broker, f"chiffon+{database}", result_extended=True) as client:
        yield Running(client, database)


def test_a_result_comes_back_with_all_that_is_known_of_it(running: Running) -> None:
    result = plain.add.delay(2, y=3)
    assert result.get(timeout=PATIENCE) == 5
    again = running.client.AsyncResult(result.id)
    assert (again.state, again.result, again.traceback, again.children) == ("SUCCESS", 5, None, [])
    assert (again.name, again.args, again.kwargs) == ("tests.plain_celery.add", [2], {"y": 3})
    assert (again.retries, again.queue) == (0, "celery")
    assert again.worker.startswith("celery@")
    assert again.date_done.tzinfo is not None
    assert again.exists()


def test_an_unknown_id_is_pending_and_does_not_exist(running: Running) -> None:
    result = running.client.AsyncResult("nobody-knows-it")
    assert (result.state, result.result, result.exists()) == ("PENDING", None, False)


def test_a_failure_comes_back_as_the_exception_that_it_was(running: Running) -> None:
    result = plain.paint.delay("red", 2.5)
    with pytest.raises(plain.OutOfPaint) as caught:
        result.get(timeout=PATIENCE)
    assert (caught.value.args, caught.value.litres) == (("red", 2.5), 2.5)
    assert result.state == "FAILURE"
    assert "raise OutOfPaint(colour, litres)" in result.traceback
    assert isinstance(result.get(propagate=False), plain.OutOfPaint)


@pytest.mark.parametrize("kind", ["NaN", "infinity", "NUL", "surrogate"])
def test_a_result_that_postgres_cannot_keep_is_a_failure_that_says_so(running: Running, kind: str) -> None:
    with pytest.raises(EncodeError, match="Postgres can keep"):
        plain.unsayable.delay(kind).get(timeout=PATIENCE)


def test_an_exception_with_such_arguments_is_put_into_words(running: Running) -> None:
    with pytest.raises(ValueError, match="x00") as caught:
        plain.fail_unsayably.delay().get(timeout=PATIENCE)
    assert caught.value.args == ("'a\\x00b'", "'\\ud800'", "nan")


def test_a_retried_task_ends_with_what_it_returned_at_last(running: Running) -> None:
    assert plain.second_time_lucky.delay().get(timeout=PATIENCE) == 1


def test_a_state_of_the_applications_own_is_seen_until_the_end(running: Running, tmp_path: Path) -> None:
    result = plain.half_way.delay(str(tmp_path / "go"))
    eventually("PROGRESS", lambda: result.state == "PROGRESS")
    assert result.info == {"done": 50}
    heard: list[str] = []

    def hear(meta: dict[str, Any]) -> None:
        heard.append(meta["status"])
        (tmp_path / "go").touch()

    assert result.get(timeout=PATIENCE, on_message=hear) == "whole"
    assert (heard[0], heard[-1]) == ("PROGRESS", "SUCCESS")


def test_get_gives_up_at_its_timeout(running: Running) -> None:
    began = time.monotonic()
    with pytest.raises(CeleryTimeout):
        running.client.AsyncResult("never").get(timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 5
    with pytest.raises(CeleryTimeout):
        running.client.AsyncResult("never").get(timeout=0)


def test_get_is_woken_and_does_not_poll(running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = running.client.backend
    monkeypatch.setattr(backend.listener, "reread", 3600.0)
    reads: list[object] = []
    read = backend._read_many
    monkeypatch.setattr(backend, "_read_many", lambda ids: reads.append(ids) or read(ids))
    result = plain.half_way.delay(str(tmp_path / "go"))
    opener = threading.Timer(1.5, (tmp_path / "go").touch)
    opener.start()
    began = time.monotonic()
    assert result.get(timeout=PATIENCE, interval=3600) == "whole"
    assert 1.4 < time.monotonic() - began < 5
    assert len(reads) <= 4  # the first look, one that it listens, one that it has connected, one that it has ended
    reads.clear()
    assert plain.half_way.delay(str(tmp_path / "go")).get(timeout=PATIENCE, interval=3600) == "whole"
    assert len(reads) <= 2  # it listens already: one look, and one when it has ended


def test_on_interval_is_called_while_it_waits_and_may_end_it(running: Running) -> None:
    class Enough(Exception):
        pass

    calls: list[None] = []

    def count() -> None:
        calls.append(None)
        if len(calls) == 3:
            raise Enough

    with pytest.raises(Enough):
        running.client.backend.wait_for("never", timeout=PATIENCE, interval=0.05, on_interval=count)


def test_an_interval_of_nothing_keeps_no_processor_busy(running: Running) -> None:
    calls: list[None] = []
    with pytest.raises(CeleryTimeout):
        running.client.backend.wait_for("never", timeout=0.5, interval=0, on_interval=lambda: calls.append(None))
    assert 1 <= len(calls) <= 10


def test_every_waiter_is_woken_with_its_own(running: Running) -> None:
    results = [plain.same.s(n).set(countdown=0.2) for n in range(20)]
    found: dict[int, Any] = {}

    def wait(n: int, result: Any) -> None:
        found[n] = result.get(timeout=PATIENCE, interval=3600)

    threads = [threading.Thread(target=wait, args=(n, s.apply_async())) for n, s in enumerate(results)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: n for n in range(20)}


def test_a_callback_is_called_when_its_result_is_ready(running: Running) -> None:
    heard: list[str] = []
    together = group(plain.add.s(n, n) for n in range(3))()
    for result in together:
        result.then(lambda ready: heard.append(ready.id))
    together.then(lambda ready: heard.append("all"))
    assert together.get(timeout=PATIENCE) == [0, 2, 4]
    assert set(heard) == {*(result.id for result in together), "all"}


def test_a_group_is_saved_restored_and_deleted(running: Running) -> None:
    together = group(plain.add.s(n, n) for n in range(10))()
    together.save()
    restored = running.client.GroupResult.restore(together.id)
    assert restored.get(timeout=PATIENCE) == [2 * n for n in range(10)]
    assert restored.successful()
    assert restored.completed_count() == 10
    restored.delete()
    assert running.client.GroupResult.restore(together.id) is None


def test_a_group_can_be_joined_as_its_results_come(running: Running) -> None:
    together = group(plain.same.s("a"), plain.paint.s("blue", 1), plain.same.s("c"))()
    seen: dict[str, Any] = {}
    together.join_native(
        timeout=PATIENCE, propagate=False, callback=lambda task_id, value: seen.update({task_id: value})
    )
    assert [seen[result.id] if n != 1 else None for n, result in enumerate(together)] == ["a", None, "c"]
    assert isinstance(seen[together[1].id], plain.OutOfPaint)
    with pytest.raises(plain.OutOfPaint):
        together.get(timeout=PATIENCE)


def test_a_chain_hands_on_and_knows_its_parents(running: Running) -> None:
    last = chain(plain.add.s(1, 1), plain.add.s(5), plain.add.s(10))()
    assert last.get(timeout=PATIENCE) == 17
    assert (last.parent.get(), last.parent.parent.get()) == (7, 2)


def test_a_chain_that_fails_fails_to_its_end(running: Running) -> None:
    last = chain(plain.paint.s("green", 3), plain.same.s(), plain.same.s())()
    with pytest.raises(plain.OutOfPaint):
        last.get(timeout=PATIENCE)
    eventually("the end of the chain", lambda: last.state == "FAILURE")


def test_a_group_behind_a_failure_is_not_waited_for_in_vain(running: Running) -> None:
    together = chain(plain.paint.s("green", 3), group(plain.same.s(), plain.same.s()))()
    with pytest.raises(plain.OutOfPaint):
        together.get(timeout=PATIENCE)


def test_the_children_of_a_task_are_known(running: Running) -> None:
    parent = plain.send_children.delay(3)
    parent.get(timeout=PATIENCE)
    assert [child.get(timeout=PATIENCE) for child in parent.children] == [[0, 2, 4]]


def test_a_forgotten_result_is_pending_again(running: Running) -> None:
    result = plain.add.delay(1, 1)
    assert result.get(timeout=PATIENCE) == 2
    result.forget()
    assert running.ask("SELECT count(*) FROM results WHERE task_id = %s", result.id) == [(0,)]
    assert running.client.AsyncResult(result.id).state == "PENDING"


def test_a_result_can_be_pickled_with_its_backend(running: Running) -> None:
    result = plain.add.delay(4, 4)
    assert pickle.loads(pickle.dumps(result)).get(timeout=PATIENCE) == 8  # noqa: S301


def test_cleanup_deletes_what_has_expired(running: Running) -> None:
    old, new = plain.add.delay(1, 1), plain.add.delay(2, 2)
    together = group(plain.add.s(1, 1), plain.add.s(2, 2))()
    together.save()
    assert (old.get(timeout=PATIENCE), new.get(timeout=PATIENCE)) == (2, 4)
    running.ask("UPDATE results SET date_done = now() - interval '25 hours' WHERE task_id = %s", old.id)
    running.ask("UPDATE result_groups SET date_done = now() - interval '25 hours'")
    running.client.tasks["celery.backend_cleanup"]()
    assert running.client.AsyncResult(old.id).state == "PENDING"
    assert running.client.AsyncResult(new.id).get() == 4
    assert running.client.GroupResult.restore(together.id) is None
