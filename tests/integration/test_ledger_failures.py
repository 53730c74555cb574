"""What goes wrong with Postgres, in the words of the domain: refused data, absence, a commit without an answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg2
import pytest

from chiffon.devstack.postgres import PrivatePostgres
from chiffon.dispatch.submit import submit_all
from chiffon.domain.errors import LedgerUnavailable, OutcomeUnknown
from chiffon.domain.tasks import Accepted, Duplicate, KeyReused
from chiffon.domain.verdicts import Completed, Failed, RetryLater
from chiffon.ledger.accept import accept
from chiffon.ledger.connect import Cursor, Ledger, open_session, session_transaction
from chiffon.ledger.failures import CommitUnknown, RefusedData
from chiffon.ledger.settle import Fenced
from tests.bench import LEASE, Agent, Bench
from tests.builders import an_error, new_task
from tests.proxy import Proxy
from tests.racing import Thread, until

COMMIT = b"COMMIT"


@pytest.fixture
def proxy(bench: Bench) -> Iterator[Proxy]:
    with Proxy.before(bench.url) as standing:
        yield standing


@pytest.fixture
def ledger(bench: Bench, proxy: Proxy) -> Iterator[Ledger]:
    """The ledger through the proxy."""
    lent = Ledger(proxy.url(bench.url))
    yield lent
    lent.close()


@pytest.mark.parametrize(
    "result", ['["taken meanwhile: ", "\\u0000"]', '"\\u0000"', '"\\ud800"', "NaN", "{", "", '{"a": 1']
)
def test_a_result_that_jsonb_cannot_keep_is_refused_as_data(bench: Bench, result: str) -> None:
    claim = bench.claimed()
    with pytest.raises(RefusedData):
        bench.settle(claim, Completed(result))
    assert bench.status(claim.task_id) == "running"
    bench.settle(claim, Completed("1"))


@pytest.mark.parametrize("message", ["a\x00b", "a\ud800b"])
def test_an_error_that_jsonb_cannot_keep_is_refused_as_data(bench: Bench, message: str) -> None:
    claim = bench.claimed()
    for verdict in (
        Failed(an_error(message)),
        RetryLater(1.0, an_error(message)),
        Failed(an_error("x", traceback=message)),
    ):
        with pytest.raises(RefusedData):
            bench.settle(claim, verdict)
    assert bench.status(claim.task_id) == "running"


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"])
def test_text_that_postgres_cannot_keep_is_refused_as_data(bench: Bench, text: str) -> None:
    for fields in ({"task_id": text}, {"request_id": text}, {"labels": {"a": text}}):
        with pytest.raises(RefusedData):
            bench.accept(new_task(**fields))
    assert bench.sql("SELECT count(*) FROM tasks") == [(0,)]


@pytest.mark.parametrize(
    "fields",
    [
        {"priority": 6},
        {"priority": 40_000},
        {"trace_id": "xyz"},
        {"task_id": "t" * 256},
        {"request_id": "r" * 201},
        {"delay": 1e300},
        {"max_retries": 2**40},
    ],
)
def test_values_that_do_not_fit_are_refused_as_data(bench: Bench, fields: dict[str, object]) -> None:
    with pytest.raises(RefusedData):
        bench.accept(new_task(**fields))


def test_after_refused_data_the_connection_is_as_good_as_before(bench: Bench) -> None:
    for _ in range(20):
        with pytest.raises(RefusedData):
            bench.accept(new_task(priority=6))
    assert isinstance(bench.accept(new_task())[0], Accepted)


def test_a_callers_own_mistake_is_not_called_data(bench: Bench) -> None:
    with pytest.raises(ValueError, match="mine"), bench.transaction():
        raise ValueError("mine")
    with pytest.raises(psycopg2.ProgrammingError), bench.transaction() as cursor:
        cursor.execute("SELEC 1")


def test_an_exception_undoes_the_transaction(bench: Bench) -> None:
    def fail(cursor: Cursor) -> None:
        cursor.execute("INSERT INTO results (task_id, status) VALUES ('x', 'SUCCESS')")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), bench.transaction() as cursor:
        fail(cursor)
    assert bench.sql("SELECT count(*) FROM results") == [(0,)]


def test_a_server_that_is_not_there_is_unavailable_at_once() -> None:
    ledger = Ledger("postgresql+psycopg2://127.0.0.1:1/none")
    with pytest.raises(LedgerUnavailable), ledger.transaction():
        pass
    with pytest.raises(LedgerUnavailable):
        open_session("postgresql+psycopg2://127.0.0.1:1/none", "nobody")


def test_a_backend_that_is_killed_amid_a_transaction_is_an_unavailable_ledger(bench: Bench) -> None:
    def kill(cursor: Cursor) -> None:
        cursor.execute("SELECT pg_backend_pid()")
        ((pid,),) = cursor.fetchall()
        assert bench.sql("SELECT pg_terminate_backend(%s)", pid) == [(True,)]
        until(lambda: bench.sql("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", pid) == [(0,)])
        cursor.execute("SELECT 1")

    with pytest.raises(LedgerUnavailable) as caught, bench.transaction() as cursor:
        kill(cursor)
    assert not isinstance(caught.value, CommitUnknown)
    assert bench.sql("SELECT 1") == [(1,)]


def test_a_restart_of_the_server_costs_the_pool_nothing(bench: Bench, postgres: PrivatePostgres) -> None:
    bench.sql("SELECT 1")
    postgres.restart()
    assert bench.sql("SELECT 1") == [(1,)]


def test_a_server_that_is_stopped_is_unavailable_and_available_again(bench: Bench, postgres: PrivatePostgres) -> None:
    postgres.stop()
    for _ in range(3):
        with pytest.raises(LedgerUnavailable), bench.transaction():
            pass
    postgres.start()
    assert bench.sql("SELECT 1") == [(1,)]


def test_a_pool_that_is_used_up_is_an_unavailable_ledger(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    held = [bench.ledger.transaction() for _ in range(10)]
    monkeypatch.setattr(bench.ledger.engine.pool, "_timeout", 0.01)
    for one in held:
        one.__enter__()
    with pytest.raises(LedgerUnavailable, match="no connection"), bench.transaction():
        pass
    for one in held:
        one.__exit__(None, None, None)
    assert bench.sql("SELECT 1") == [(1,)]


def test_a_session_says_what_broke_and_is_closed_by_it(bench: Bench, proxy: Proxy) -> None:
    session = open_session(proxy.url(bench.url), "mine")
    with session_transaction(session) as cursor:
        cursor.execute("SELECT 1")
    proxy.cut()
    with pytest.raises(LedgerUnavailable), session_transaction(session) as cursor:
        cursor.execute("SELECT 1")
    assert session.closed


def test_a_url_may_have_options_of_its_own(bench: Bench) -> None:
    options = "connect_timeout=3&application_name=mine&keepalives_idle=9&sslmode=prefer"
    session = open_session(f"{bench.url}?{options}", "chiffon sweeper")
    with session_transaction(session) as cursor:
        cursor.execute("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")
        assert cursor.fetchall() == [("chiffon sweeper",)]
    session.close()
    ledger = Ledger(f"{bench.url}?{options}")
    with ledger.transaction() as cursor:
        cursor.execute("SELECT 1")
    ledger.close()


def test_a_commit_whose_answer_is_lost_is_told_from_a_statement_that_failed(
    bench: Bench, ledger: Ledger, proxy: Proxy
) -> None:
    proxy.lose_answer_to = COMMIT
    with pytest.raises(CommitUnknown), ledger.transaction() as cursor:
        cursor.execute("INSERT INTO results (task_id, status) VALUES ('x', 'SUCCESS')")
    until(lambda: bench.sql("SELECT count(*) FROM results") == [(1,)])
    proxy.lose_answer_to = b"INSERT"
    with pytest.raises(LedgerUnavailable) as caught, ledger.transaction() as cursor:
        cursor.execute("INSERT INTO results (task_id, status) VALUES ('y', 'SUCCESS')")
    assert not isinstance(caught.value, CommitUnknown)
    assert bench.sql("SELECT count(*) FROM results") == [(1,)]


@pytest.mark.parametrize("how", ["lose_answer_to", "cut_at"])
def test_an_acceptance_whose_commit_was_not_answered_has_happened_once(
    bench: Bench, ledger: Ledger, proxy: Proxy, how: str
) -> None:
    tasks = [new_task(), new_task(delay=3600.0)]
    setattr(proxy, how, COMMIT)
    fates, _ = submit_all(ledger, tasks, lease=LEASE)
    assert proxy.cuts == 1
    assert fates == [Accepted(task.task_id) for task in tasks]
    assert [bench.history(task.task_id) for task in tasks] == [["pending"], ["scheduled"]]
    assert bench.sql("SELECT count(*) FROM request_keys") == [(2,)]


def test_so_has_each_task_of_a_batch_with_its_own_fate(bench: Bench, ledger: Ledger, proxy: Proxy) -> None:
    known = new_task(request_id="known")
    bench.accept(known)
    batch = [new_task(), new_task(request_id="known"), new_task(request_id="known", parameters={"input": "other"})]
    proxy.lose_answer_to = COMMIT
    fates, _ = submit_all(ledger, batch, lease=LEASE)
    assert fates == [Accepted(batch[0].task_id), Duplicate(known.task_id), KeyReused(known.task_id)]
    assert bench.sql("SELECT count(*) FROM tasks") == [(2,)]


def test_an_acceptance_that_cannot_be_looked_up_is_unknown_with_both_ids(
    bench: Bench, ledger: Ledger, proxy: Proxy
) -> None:
    task = new_task()
    with ledger.transaction() as cursor:
        cursor.execute("SELECT 1")
    proxy.lose_answer_to = COMMIT
    proxy.refuse = True
    with pytest.raises(OutcomeUnknown) as caught:
        submit_all(ledger, [task], lease=LEASE)
    assert (caught.value.task_id, caught.value.request_id) == (task.task_id, task.request_id)
    proxy.refuse = False
    again = new_task(request_id=task.request_id)
    fates, _ = submit_all(ledger, [again], lease=LEASE)
    assert fates == [Duplicate(task.task_id)]
    assert bench.history(task.task_id) == ["pending"]


def test_an_acceptance_whose_statement_was_lost_did_not_happen(bench: Bench, ledger: Ledger, proxy: Proxy) -> None:
    task = new_task()
    proxy.lose_answer_to = b"INSERT INTO tasks"
    with pytest.raises(LedgerUnavailable) as caught:
        submit_all(ledger, [task], lease=LEASE)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert bench.sql("SELECT count(*) FROM tasks") == [(0,)]


AT_ONCE = b"/* bear_if_free */"


@pytest.mark.parametrize("how", ["lose_answer_to", "cut_at"])
def test_a_fresh_task_is_accepted_by_one_statement_and_once_whether_or_not_it_was_answered(
    bench: Bench, ledger: Ledger, proxy: Proxy, how: str
) -> None:
    task = new_task(fresh=True)
    setattr(proxy, how, AT_ONCE)
    fates, rings = submit_all(ledger, [task], lease=LEASE)
    assert proxy.cuts == 1
    assert fates == [Accepted(task.task_id)]
    assert len(rings) == (1 if how == "cut_at" else 0), "what had happened is left to the sweeper"
    assert bench.history(task.task_id) == ["pending"]
    assert bench.sql("SELECT task_id FROM request_keys") == [(task.task_id,)]


def test_a_fresh_task_whose_key_is_held_is_a_duplicate_or_refused(bench: Bench, ledger: Ledger, proxy: Proxy) -> None:
    first = new_task(fresh=True)
    same = new_task(request_id=first.request_id, fresh=True)
    other = new_task(request_id=first.request_id, parameters={"input": "other"}, fresh=True)
    assert [submit_all(ledger, [task], lease=LEASE)[0][0] for task in (first, same, other)] == [
        Accepted(first.task_id),
        Duplicate(first.task_id),
        KeyReused(first.task_id),
    ]
    proxy.lose_answer_to = AT_ONCE
    assert submit_all(ledger, [same], lease=LEASE)[0] == [Duplicate(first.task_id)]
    assert bench.sql("SELECT count(*) FROM tasks") == [(1,)]


@pytest.mark.parametrize(
    ("trouble", "is_known"),
    [
        ("RAISE EXCEPTION 'no' USING ERRCODE = '53100'", True),
        ("RAISE EXCEPTION 'no' USING ERRCODE = '57014'", True),
        ("RAISE EXCEPTION 'no' USING ERRCODE = '25006'", True),
        ("RAISE EXCEPTION 'no' USING ERRCODE = '08006'", False),  # a pooler's, which has lost the server
        ("PERFORM pg_terminate_backend(pg_backend_pid())", False),
    ],
    ids=["disk full", "cancelled", "read-only", "lost by a pooler", "shut down"],
)
def test_what_postgres_itself_refuses_is_known_not_to_have_happened(bench: Bench, trouble: str, is_known: bool) -> None:
    bench.sql(f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {trouble}; RETURN NEW; END $$")
    bench.sql("CREATE TRIGGER fail BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION fail()")
    with pytest.raises(LedgerUnavailable) as caught:
        submit_all(bench.ledger, [new_task(fresh=True)], lease=LEASE)
    assert isinstance(caught.value, OutcomeUnknown) != is_known
    assert bench.sql("SELECT count(*) FROM request_keys") == [(0,)]


def test_a_fresh_task_that_cannot_be_looked_up_is_unknown_with_both_ids(
    bench: Bench, ledger: Ledger, proxy: Proxy
) -> None:
    task = new_task(fresh=True)
    with ledger.transaction() as cursor:
        cursor.execute("SELECT 1")
    proxy.lose_answer_to = AT_ONCE
    proxy.refuse = True
    with pytest.raises(OutcomeUnknown) as caught:
        submit_all(ledger, [task], lease=LEASE)
    assert (caught.value.task_id, caught.value.request_id) == (task.task_id, task.request_id)
    with pytest.raises(LedgerUnavailable) as away:
        submit_all(ledger, [new_task(fresh=True)], lease=LEASE)
    assert not isinstance(away.value, CommitUnknown), "nothing was asked"
    assert bench.history(task.task_id) == ["pending"]


def test_a_batch_of_fresh_tasks_of_which_some_are_known_is_all_or_nothing(
    bench: Bench, ledger: Ledger, proxy: Proxy
) -> None:
    known = new_task(fresh=True)
    submit_all(ledger, [known], lease=LEASE)
    batch = [new_task(fresh=True), new_task(request_id=known.request_id, fresh=True)]
    proxy.lose_answer_to = b"FROM tasks WHERE task_id = ANY"  # when the first is written down, and the second looked at
    with pytest.raises(LedgerUnavailable) as caught:
        submit_all(ledger, batch, lease=LEASE)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert bench.sql("SELECT task_id FROM tasks") == [(known.task_id,)]
    assert submit_all(ledger, batch, lease=LEASE)[0] == [Accepted(batch[0].task_id), Duplicate(known.task_id)]


def test_a_fresh_task_whose_id_was_taken_in_between_leaves_no_key(bench: Bench, ledger: Ledger) -> None:
    holder = new_task()
    late = replace(holder, request_id="late", fresh=True)
    with bench.transaction() as cursor:
        accept(cursor, [holder], lease=LEASE)
        racing = Thread(lambda: submit_all(ledger, [late], lease=LEASE))
        until(lambda: bench.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
    fates, _ = racing.answer()
    assert fates == [Duplicate(holder.task_id)]
    assert bench.sql("SELECT request_id FROM request_keys") == [(holder.request_id,)]


def test_a_claim_whose_answer_is_lost_is_found_again_by_its_token(bench: Bench, proxy: Proxy) -> None:
    agent = Agent(proxy.url(bench.url), "cut off")
    task_id, token = bench.born(), "0190a0e8-7b1c-7cc3-98c4-dc0c0c07398f"
    proxy.lose_answer_to = COMMIT
    with pytest.raises(CommitUnknown):
        agent.claim(task_id, token=token)
    until(lambda: bench.status(task_id) == "running")
    again = Agent(bench.url, "cut off")
    found = again.claim(task_id, token=token)
    assert found.execution == 1  # type: ignore[union-attr]
    assert not isinstance(bench.settle((task_id, 1), Completed("1")), Fenced)
    again.die()
