"""What is written about agents, and about results, groups and chords."""

from __future__ import annotations

from collections.abc import Callable

from chiffon.domain.states import State
from chiffon.ledger import agents, expiry, groups, results, retention, sweeps
from chiffon.ledger.connect import Cursor
from chiffon.ledger.results import StoredResult
from tests.bench import Bench
from tests.unanswered.write import Write, inside

TREE = '[["g", null], [[["p1", null], null], [["p2", null], null]]]'
TWINS = '[["g", null], [[["p1", null], null], [["p1", null], null]]]'


# The registry


def beat(bench: Bench) -> Write:
    incarnation = bench.agent().incarnation
    moves = frozenset({"last_heartbeat_at"})
    return Write(inside(lambda c: agents.beat(c, incarnation, queues=["work_queue", "gpu"], slots=9)), None, moves)


def drain(bench: Bench) -> Write:
    incarnation = bench.agent().incarnation
    return Write(inside(lambda c: agents.drain(c, incarnation)))


def leave(bench: Bench) -> Write:
    incarnation = bench.agent().incarnation
    moves = frozenset({"last_heartbeat_at", "stopped_at"})

    def check() -> None:
        assert bench.sql("SELECT stopped_at IS NOT NULL FROM agents") == [(True,)]

    return Write(inside(lambda c: agents.leave(c, incarnation)), None, moves, check)


def forget_agents(bench: Bench) -> Write:
    gone, here = bench.agent("gone"), bench.agent("here")
    with bench.transaction() as cursor:
        agents.leave(cursor, gone.incarnation)
    bench.lose(gone)
    bench.pass_time(100)

    def check() -> None:
        assert bench.sql("SELECT incarnation FROM agents") == [(here.incarnation,)]

    return Write(inside(lambda c: retention.forget_agents(c, age=50)), 0, check=check)


def silence(bench: Bench) -> Write:
    mute, living = bench.agent("mute"), bench.agent("living")
    bench.pass_time(100)
    with bench.transaction() as cursor:
        agents.beat(cursor, living.incarnation, queues=["work_queue"], slots=4)
    both = [mute.incarnation, living.incarnation]

    def mute_ones() -> set[int]:
        with bench.transaction() as cursor:
            return sweeps.mute(cursor, offline_after=50)

    def check() -> None:
        assert mute_ones() == set()
        bench.claimed(by=living)

    write = inside(lambda c: sweeps.silence(c, both, offline_after=50))
    return Write(write, [], beside=mute_ones, check=check)


# Results


def store_success(bench: Bench) -> Write:
    return Write(inside(lambda c: results.store(c, StoredResult("t", "SUCCESS", "1"))), False)


def store_failure(bench: Bench) -> Write:
    moves = frozenset({"date_done"})
    return Write(inside(lambda c: results.store(c, StoredResult("t", "FAILURE", "1"))), True, moves)


def forget(bench: Bench) -> Write:
    bench.task_in(State.COMPLETED, task_id="t")
    return Write(inside(lambda c: results.forget(c, "t")))


def begin_chord(bench: Bench) -> Write:
    return Write(inside(lambda c: groups.begin_chord(c, "g", TWINS)), None, frozenset({"date_done"}))


def begin_chord_again(bench: Bench) -> Write:
    with bench.transaction() as cursor:
        groups.begin_chord(cursor, "g", None)
        results.size_chord(cursor, "g", 1)
        assert results.finish_part(cursor, "g", "old", "SUCCESS")
    return Write(inside(lambda c: groups.begin_chord(c, "g", TREE)), None, frozenset({"date_done"}))


def size_chord(bench: Bench) -> Write:
    return Write(inside(lambda c: results.size_chord(c, "g", 2)))


def add_to_chord(bench: Bench) -> Write:
    with bench.transaction() as cursor:
        groups.begin_chord(cursor, "g", TREE)
    return Write(inside(lambda c: groups.add_to_chord(c, "g", "p3", '[["p3", null], null]')))


def finish_last_part(bench: Bench) -> Write:
    with bench.transaction() as cursor:
        results.size_chord(cursor, "g", 1)

    def check() -> None:
        with bench.transaction() as cursor:
            assert results.released_by(cursor, "g", "p1"), "who asks is told that it was this part"

    return Write(inside(lambda c: results.finish_part(c, "g", "p1", "SUCCESS")), False, check=check)


def forget_parts(bench: Bench) -> Write:
    with bench.transaction() as cursor:
        results.finish_part(cursor, "g", "p1", "SUCCESS", 1)
    return Write(inside(lambda c: results.forget_parts(c, "g")))


def make_header(bench: Bench) -> Write:
    with bench.transaction() as cursor:
        results.finish_part(cursor, "g", "p1", "SUCCESS", 1)
    return Write(inside(lambda c: groups.header(c, "g")), '[["g", null], [[["p1", null], null]]]')


def save_group(bench: Bench) -> Write:
    return Write(inside(lambda c: groups.save_group(c, "g", TREE)), None, frozenset({"date_done"}))


def delete_group(bench: Bench) -> Write:
    with bench.transaction() as cursor:
        groups.save_group(cursor, "g", TREE)
    return Write(inside(lambda c: groups.delete_group(c, "g")))


def expire_results(bench: Bench) -> Write:
    with bench.transaction() as cursor:
        results.store(cursor, StoredResult("t", "SUCCESS", "1"))
        groups.save_group(cursor, "g", TREE)
        results.size_chord(cursor, "c", 2)
    bench.pass_time(100)

    def write(cursor: Cursor) -> list[int]:
        return [
            expiry.expire_results(cursor, age=50, failure_age=50, limit=10).deleted,
            expiry.expire_groups(cursor, age=50, limit=10).deleted,
            expiry.expire_chords(cursor, age=50, limit=10).deleted,
        ]

    return Write(inside(write), [0, 0, 0])


WRITES: list[Callable[[Bench], Write]] = [
    beat, drain, leave, forget_agents, silence,
    store_success, store_failure, forget, begin_chord, begin_chord_again, size_chord, add_to_chord, finish_last_part,
    forget_parts, make_header, save_group, delete_group, expire_results,
]  # fmt: skip
