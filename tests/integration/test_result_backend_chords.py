"""Chords of a stock Celery application: every part counts once, and the body runs once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.app.task import Context
from celery.exceptions import ChordError

from chiffon.ledger import results
from chiffon.ledger.failures import CommitUnknown
from tests import plain_celery as plain
from tests.conftest import started
from tests.e2e.waiting import always, eventually
from tests.plain_worker import plain_client, plain_worker
from tests.services import Services

PATIENCE = 20.0


@pytest.fixture(scope="module")
def client(services: Services, tmp_path_factory: pytest.TempPathFactory, pool: str) -> Iterator[Celery]:
    """A client with a worker behind it, for all the tests of this module."""
    if services.given_broker is None:
        started(lambda: services.rabbitmq)
    started(lambda: services.postgres)
    with (
        services.fresh_broker() as broker,
        services.fresh_database("template1") as database,
        plain_worker(tmp_path_factory.mktemp("plain"), broker, f"chiffon+{database}", pool),
        plain_client(broker, f"chiffon+{database}") as client,
    ):
        yield client


@pytest.mark.parametrize("size", [0, 1, 2, 10, 100])
def test_a_chord_hands_on_what_its_header_returned(client: Celery, size: int) -> None:
    doubled = chord([plain.add.s(n, n) for n in range(size)], plain.same.s())()
    assert doubled.get(timeout=PATIENCE) == [2 * n for n in range(size)]


def test_a_long_chain_in_a_header_and_in_a_group_that_is_saved(client: Celery) -> None:
    steps = chain(plain.add.s(0, 0), *(plain.add.s(1) for _ in range(59)))
    assert chord([steps, plain.add.s(1, 1)], plain.same.s())().get(timeout=PATIENCE) == [59, 2]
    together = group(steps, plain.add.s(1, 1))()
    together.save()
    restored = client.GroupResult.restore(together.id)
    assert restored.get(timeout=PATIENCE) == [59, 2]
    assert restored[0].parent.parent.get(timeout=PATIENCE) == 57


def test_a_chord_in_a_chord(client: Celery) -> None:
    inner = [chord([plain.add.s(n, n) for n in range(3)], plain.total.s()) for _ in range(3)]
    assert chord(inner, plain.same.s())().get(timeout=PATIENCE) == [6, 6, 6]


def test_a_chord_whose_body_is_a_chord(client: Celery) -> None:
    body = chain(plain.same.s(), group(plain.total.s(), plain.total.s()), plain.total.s())
    assert chord([plain.add.s(1, 1), plain.add.s(2, 2)], body)().get(timeout=PATIENCE) == 12


def test_groups_and_chains_in_a_header_keep_their_shape(client: Celery) -> None:
    header = [
        plain.add.s(1, 1) | plain.add.s(1),
        plain.add.s(1, 1) | group(plain.add.s(1), plain.add.s(2)),
        plain.add.s(3, 3),
    ]
    assert chord(header, plain.same.s())().get(timeout=PATIENCE) == [3, [3, 4], 6]


def test_a_header_may_come_from_a_generator(client: Celery) -> None:
    doubled = chord((plain.add.s(n, n) for n in range(20)), plain.same.s())()
    assert doubled.get(timeout=PATIENCE) == [2 * n for n in range(20)]


def test_a_task_that_a_header_names_twice_is_waited_for_once(client: Celery) -> None:
    twin = plain.add.s(1, 1)
    twin.freeze()
    assert chord([twin, plain.add.s(2, 2), twin], plain.same.s())().get(timeout=PATIENCE) == [2, 4, 2]


def test_parts_that_ignore_their_results_are_handed_on_too(client: Celery) -> None:
    assert chord([plain.hush.s(1), plain.hush.s(2)], plain.same.s())().get(timeout=PATIENCE) == [1, 2]


def test_a_part_may_become_a_chord_itself(client: Celery) -> None:
    assert chord([plain.spread.s([1, 2]), plain.add.s(3, 3)], plain.same.s())().get(timeout=PATIENCE) == [5, 6]


def test_a_part_may_add_another_to_its_chord(client: Celery) -> None:
    assert chord([plain.invite.s(2), plain.add.s(1, 1)], plain.same.s())().get(timeout=PATIENCE) == [2, 2, 4]


def test_a_failure_in_the_header_fails_the_body_and_calls_its_errback_once(client: Celery, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    body = plain.note.s(str(tmp_path / "body")).on_error(plain.note_failure.s(str(notes)))
    result = chord([plain.add.s(1, 2), plain.paint.s("red", 1), plain.add.s(3, 4)], body)()
    error: Any = eventually("the body's failure", lambda: result.state == "FAILURE" and result.result)
    assert isinstance(error, ChordError)
    assert "raised OutOfPaint('red', 1)" in str(error)
    eventually("a call of the errback", lambda: notes.exists() and notes.read_text())
    always("one call of the errback", lambda: len(notes.read_text().splitlines()) == 1, during=0.3)
    assert not (tmp_path / "body").exists()


def test_a_header_that_has_run_may_run_again(client: Celery) -> None:
    frozen = chord([plain.add.s(1, 1), plain.add.s(2, 2)], plain.same.s())
    frozen.tasks = group(frozen.tasks)
    frozen.tasks.freeze()
    assert [frozen().get(timeout=PATIENCE) for _ in range(3)] == [[2, 4]] * 3


def last_part(client: Celery, name: str, path: Path, *, redelivered: bool) -> Context:
    """The request of the only part of a chord whose body writes to ``path``."""
    body = plain.note.s(str(path))
    body.freeze()
    client.backend.apply_chord((f"group of {name}", [client.AsyncResult(name)]), body)
    client.backend.set_chord_size(f"group of {name}", 1)
    client.backend.store_result(name, "done", "SUCCESS")
    return Context(id=name, group=f"group of {name}", chord=dict(body), delivery_info={"redelivered": redelivered})


def written_once(path: Path) -> None:
    # A file is there before its first line is.
    eventually("the body has run", lambda: path.exists() and path.read_text())
    always("one run of the body", lambda: path.read_text() == "['done']\n", during=0.3)


def test_a_callback_is_published_though_the_answer_to_the_release_was_lost(
    client: Celery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = last_part(client, "unanswered", tmp_path / "body", redelivered=False)
    whole = client.backend._transaction
    lost: list[bool] = []

    @contextlib.contextmanager
    def losing_the_first_answer() -> Iterator[Any]:
        with whole() as cursor:
            yield cursor
        if not lost:
            lost.append(True)
            raise CommitUnknown("the connection broke")

    monkeypatch.setattr(client.backend, "_transaction", losing_the_first_answer)
    client.backend.on_chord_part_return(request, "SUCCESS", "done")
    client.backend.on_chord_part_return(request, "SUCCESS", "done")
    written_once(tmp_path / "body")


def test_a_part_that_died_before_it_had_published_the_callback_does_it_when_it_comes_back(
    client: Celery, tmp_path: Path
) -> None:
    request = last_part(client, "dead", tmp_path / "body", redelivered=True)
    with client.backend.ledger.transaction() as cursor:
        assert results.finish_part(cursor, request.group, request.id, "SUCCESS")
    for _ in range(2):
        client.backend.on_chord_part_return(request, "SUCCESS", "done")
    written_once(tmp_path / "body")
