"""What Celery's backend asks of the ledger: states that only go forward, and chords that are released once."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence

import pytest
from celery import Celery
from celery.exceptions import ChordError

from chiffon.agent.backend import PostgresBackend
from chiffon.domain.states import CELERY_STATES, ENDS, State
from chiffon.domain.verdicts import Completed, RetryLater
from chiffon.ledger import expiry, groups, results
from chiffon.ledger.effects import RELEASE_CHORD, release_request_id
from chiffon.ledger.results import Part, StoredResult
from tests.bench import Bench
from tests.builders import an_error, new_task

HOUR = 3600.0


def store(bench: Bench, task_id: str, status: str, value: object = None, **fields: str) -> bool:
    with bench.transaction() as cursor:
        return results.store(cursor, StoredResult(task_id, status, json.dumps(value), **fields))


def fetch(bench: Bench, task_id: str) -> StoredResult | None:
    with bench.transaction() as cursor:
        return results.fetch(cursor, task_id)


def state(bench: Bench, task_id: str) -> str | None:
    found = fetch(bench, task_id)
    return found and found.status


def a_chord(bench: Bench, names: Sequence[str], *, size: int | None = None, made: bool = True) -> str:
    """Begin a chord called ``chord``, and say its size."""
    tree = json.dumps([["chord", None], [[[name, None], None] for name in names]])
    with bench.transaction() as cursor:
        groups.begin_chord(cursor, "chord", tree if made else None)
    with bench.transaction() as cursor:
        results.size_chord(cursor, "chord", len(names) if size is None else size)
    return "chord"


def header_values(bench: Bench) -> list[object]:
    """What the parts of the released chord ``chord`` returned, as its body is given it."""
    backend: PostgresBackend = Celery("any", backend=f"chiffon+{bench.url}", set_as_current=False).backend
    return backend.header_values("chord")


def finish(bench: Bench, name: str, size: int | None = None) -> bool:
    with bench.transaction() as cursor:
        return results.finish_part(cursor, "chord", name, "SUCCESS", size)


def at_once(steps: Sequence[Callable[[], object]]) -> list[object]:
    """What steps return that are taken by as many threads at one moment."""
    gate = threading.Barrier(len(steps))
    answers: list[object] = [None] * len(steps)

    def take(number: int, step: Callable[[], object]) -> None:
        gate.wait()
        answers[number] = step()

    threads = [threading.Thread(target=take, args=pair) for pair in enumerate(steps)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize(
    ("kept", "late", "stays"),
    [
        ("STARTED", "RETRY", False),
        ("RETRY", "STARTED", False),
        ("STARTED", "SUCCESS", False),
        ("FAILURE", "SUCCESS", False),
        ("REVOKED", "SUCCESS", False),
        ("FAILURE", "REVOKED", False),
        ("FAILURE", "STARTED", True),
        ("REVOKED", "PROGRESS", True),
        ("SUCCESS", "STARTED", True),
        ("SUCCESS", "FAILURE", True),
        ("SUCCESS", "REVOKED", True),
        ("SUCCESS", "SUCCESS", True),
    ],
)
def test_a_success_stays_and_an_end_is_only_followed_by_an_end(bench: Bench, kept: str, late: str, stays: bool) -> None:
    assert store(bench, "one", kept, "first")
    assert store(bench, "one", late, "second") is not stays
    found = fetch(bench, "one")
    assert found is not None
    assert (found.status, found.result) == ((kept, '"first"') if stays else (late, '"second"'))
    assert (found.date_done is not None) == (found.status in results.FINAL)


def test_a_task_of_the_ledgers_own_is_known_by_its_row_until_it_has_a_result(bench: Bench) -> None:
    tasks = bench.in_every_state()
    assert {s: state(bench, task_id) for s, task_id in tasks.items()} == dict(CELERY_STATES)


def test_what_celery_keeps_beside_a_result_is_read_from_the_task(bench: Bench) -> None:
    canvas = {
        "group": "g",
        "parent_id": "p",
        "headers": {"group_index": 2, "stamped_headers": ["shop"], "stamps": {"shop": ["a"], "other": ["b"]}},
    }
    task_id = bench.born(canvas=canvas, arguments=[1, None], parameters={"a": None})
    bench.settle(bench.claimed(task_id, by=bench.agent("celery@shop")), Completed("1"))
    found = fetch(bench, task_id)
    assert found is not None
    assert found.meta is not None
    assert json.loads(found.meta) == {
        "name": "echo",
        "args": [1, None],
        "kwargs": {"a": None},
        "worker": "celery@shop",
        "retries": 0,
        "queue": "work_queue",
        "group_id": "g",
        "parent_id": "p",
        "group_index": 2,
        "stamped_headers": ["shop"],
        "shop": ["a"],
    }


def test_an_end_whose_result_was_forgotten_is_unknown_to_celery(bench: Bench) -> None:
    for own_state, task_id in bench.in_every_state().items():
        with bench.transaction() as cursor:
            results.forget(cursor, task_id)
        expected = None if own_state in ENDS else CELERY_STATES[own_state]
        assert state(bench, task_id) == expected


def test_a_retry_says_which_error_it_is_about(bench: Bench) -> None:
    task_id = bench.task_in(State.RUNNING)
    bench.settle((task_id, 1), RetryLater(60, an_error("not yet", "ValueError")))
    found = fetch(bench, task_id)
    assert found is not None
    assert found.status == "RETRY"
    assert json.loads(found.result or "")["exc_message"] == ["not yet"]


def test_a_state_of_the_works_own_counts_while_it_runs_and_no_longer(bench: Bench) -> None:
    task_id = bench.task_in(State.RUNNING)
    assert state(bench, task_id) == "STARTED"
    store(bench, task_id, "PROGRESS", {"done": 50})
    assert state(bench, task_id) == "PROGRESS"
    bench.settle((task_id, 1), RetryLater(60, an_error()))
    assert state(bench, task_id) == "RETRY"


def test_a_chord_is_released_by_the_last_part_and_once(bench: Bench) -> None:
    a_chord(bench, ["a", "b", "c"])
    assert [finish(bench, name) for name in ("a", "b", "a", "b", "c", "c", "a")] == [False] * 4 + [True, False, False]


def test_parts_that_end_at_once_release_one_chord_once(bench: Bench) -> None:
    names = [f"part {n}" for n in range(8)]
    a_chord(bench, names)
    answers = at_once([lambda name=name: finish(bench, name) for name in names + names[:2]])  # type: ignore[misc]
    assert sorted(answers) == [False] * 9 + [True]


def test_parts_of_two_chords_that_end_crosswise_do_not_block_each_other(bench: Bench) -> None:
    def both(order: tuple[str, str], name: str) -> set[str]:
        with bench.transaction() as cursor:
            return results.finish_parts(cursor, [Part(group_id, name, "SUCCESS", 16) for group_id in order])

    steps = [lambda n=n: both(("x", "y") if n % 2 else ("y", "x"), f"part {n}") for n in range(16)]  # type: ignore[misc]
    answers = at_once(steps[:8]) + at_once(steps[8:])
    assert sorted(name for answer in answers for name in answer) == ["x", "y"]  # type: ignore[attr-defined]


def test_a_chord_whose_size_only_its_messages_know_is_released_too(bench: Bench) -> None:
    assert [finish(bench, name, 2) for name in ("a", "b")] == [False, True]


def test_who_released_a_chord_can_be_told_until_its_callback_is_on_its_way(bench: Bench) -> None:
    a_chord(bench, ["a", "b"])
    finish(bench, "a")
    finish(bench, "b")
    with bench.transaction() as cursor:
        assert [results.released_by(cursor, "chord", name) for name in ("a", "b")] == [False, True]
        results.forget_parts(cursor, "chord")
        assert not results.released_by(cursor, "chord", "b")
    assert not finish(bench, "b")
    assert bench.sql("SELECT count(*) FROM chord_parts") == [(0,)]


def test_a_header_that_was_released_can_be_run_again(bench: Bench) -> None:
    for _ in range(2):
        a_chord(bench, ["a", "b"])
        assert [finish(bench, name) for name in ("a", "b")] == [False, True]


def test_a_task_that_joins_a_chord_is_waited_for(bench: Bench) -> None:
    a_chord(bench, ["a", "b"])
    finish(bench, "b")
    for _ in range(2):
        with bench.transaction() as cursor:
            groups.add_to_chord(cursor, "chord", "c", '[["c", null], null]')
    assert [finish(bench, name) for name in ("a", "c")] == [False, True]
    for name in ("a", "b", "c"):
        store(bench, name, "SUCCESS", f"of {name}")
    assert header_values(bench) == ["of a", "of b", "of c"]


def test_the_results_of_a_header_come_in_its_order(bench: Bench) -> None:
    a_chord(bench, ["a", "b", "a"])
    store(bench, "b", "SUCCESS", 2)
    assert not finish(bench, "b")
    store(bench, "a", "SUCCESS", 1)
    assert finish(bench, "a")
    assert header_values(bench) == [1, 2, 1]


def test_the_order_of_a_header_that_nobody_knew_whole_is_that_of_its_messages(bench: Bench) -> None:
    a_chord(bench, ["a", "b", "c"], made=False)
    for index, name in reversed(list(enumerate("abc"))):
        store(bench, name, "SUCCESS", name, meta=json.dumps({"group_index": index}))
        finish(bench, name)
    for _ in range(2):
        assert header_values(bench) == ["a", "b", "c"]
        with bench.transaction() as cursor:
            results.forget_parts(cursor, "chord")


def test_a_chord_of_which_nothing_is_known_has_no_results(bench: Bench) -> None:
    with pytest.raises(ChordError, match="no longer exists"):
        header_values(bench)


def test_old_results_go_in_batches_and_failures_at_their_own_age(bench: Bench) -> None:
    for number in range(5):
        store(bench, f"old {number}", "SUCCESS")
    store(bench, "old failure", "FAILURE")
    bench.pass_time(2 * HOUR)
    store(bench, "new", "SUCCESS")
    after, deleted = expiry.START, []
    for _ in range(4):
        with bench.transaction() as cursor:
            batch = expiry.expire_results(cursor, age=HOUR, failure_age=3 * HOUR, limit=2, after=after)
        after, deleted = batch.newest, [*deleted, batch.deleted]
    assert deleted == [2, 2, 1, 0]
    assert bench.sql("SELECT task_id FROM results ORDER BY 1") == [("new",), ("old failure",)]


def test_what_a_chord_has_kept_stays_until_its_body_is_gone_on_with(bench: Bench) -> None:
    a_chord(bench, ["a"])
    store(bench, "a", "SUCCESS", 1, meta='{"group_id": "chord"}')
    finish(bench, "a")
    release = new_task(work_type=RELEASE_CHORD, request_id=release_request_id("chord"), keyed=False)
    bench.accept(release)
    bench.sql("UPDATE chords SET released_at = clock_timestamp()")
    bench.pass_time(2 * HOUR)

    def expired() -> list[int]:
        with bench.transaction() as cursor:
            return [
                expiry.expire_results(cursor, age=HOUR, failure_age=HOUR, limit=9).deleted,
                expiry.expire_groups(cursor, age=HOUR, limit=9).deleted,
                expiry.expire_chords(cursor, age=HOUR, limit=9).deleted,
            ]

    assert expired() == [0, 0, 0]
    bench.settle(bench.claimed(release.task_id), Completed("null"))
    assert expired() == [1, 1, 1]


def test_results_outlive_their_age_while_a_chord_or_their_task_needs_them(bench: Bench) -> None:
    own = bench.task_in(State.COMPLETED)
    a_chord(bench, ["a", "b"])
    store(bench, "a", "SUCCESS", 1, meta='{"group_id": "chord"}')
    finish(bench, "a")
    bench.pass_time(2 * HOUR)
    with bench.transaction() as cursor:
        assert expiry.expire_results(cursor, age=HOUR, failure_age=HOUR, limit=9).deleted == 0
        assert expiry.expire_groups(cursor, age=HOUR, limit=9).deleted == 0
        assert expiry.expire_chords(cursor, age=HOUR, limit=9).deleted == 1
        assert expiry.expire_results(cursor, age=HOUR, failure_age=HOUR, limit=9).deleted == 1
        assert expiry.expire_groups(cursor, age=HOUR, limit=9).deleted == 1
    assert bench.sql("SELECT task_id FROM results") == [(own,)]
    assert bench.sql("SELECT count(*) FROM chord_parts") == [(0,)]
