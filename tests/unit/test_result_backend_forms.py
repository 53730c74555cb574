"""How the result backend is named, shown and carried, and what JSON it keeps; no Postgres answers here."""

from __future__ import annotations

import datetime
import decimal
import pickle
import uuid
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.backends.base import DisabledBackend
from celery.exceptions import ImproperlyConfigured
from celery.result import AsyncResult, GroupResult, result_from_tuple
from kombu.exceptions import EncodeError

from chiffon.agent.backend import PostgresBackend
from chiffon.agent.backend_values import decoded, encodable, encoded, encoded_members, tree_of
from chiffon.config import settings
from tests.claimed import app

URL = "postgresql://kim:secret@db.example:5433/results"


@pytest.fixture
def own_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CHIFFON_DATABASE_URL", "postgresql://pooler.example/ledger")
    monkeypatch.setenv("CHIFFON_DATABASE_DIRECT_URL", "postgresql://direct.example/ledger")
    settings.cache_clear()
    yield
    settings.cache_clear()


def backend_of(backend: Any, **conf: Any) -> PostgresBackend:
    app = Celery("any", backend=backend, set_as_current=False)
    app.conf.update(conf)
    found = app.backend
    assert isinstance(found, PostgresBackend)
    return found


@pytest.mark.parametrize(
    "form",
    [
        f"chiffon+{URL}",
        f"chiffon.agent.backend:PostgresBackend+{URL}",
        f"chiffon.agent.backend:PostgresBackend+{URL.replace('postgresql', 'postgresql+psycopg2')}",
    ],
)
def test_every_form_of_the_url_names_the_database(form: str) -> None:
    assert backend_of(form).url == "postgresql+psycopg2://kim:secret@db.example:5433/results"


@pytest.mark.parametrize("form", [PostgresBackend, "chiffon.agent.backend:PostgresBackend", "chiffon+postgresql://"])
def test_without_a_database_the_settings_name_it(form: Any, own_database: None) -> None:
    backend = backend_of(form)
    assert backend.ledger.url == "postgresql+psycopg2://pooler.example/ledger"
    assert backend.listener.url == "postgresql+psycopg2://direct.example/ledger"


@pytest.mark.parametrize("url", ["mysql://db.example/results", "postgresql://db.example:port/results"])
def test_a_url_that_names_no_postgres_is_refused(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="result backend"):
        backend_of(f"chiffon.agent.backend:PostgresBackend+{url}")


def test_another_serializer_than_json_is_refused() -> None:
    with pytest.raises(ImproperlyConfigured, match="result_serializer"):
        backend_of(f"chiffon+{URL}", result_serializer="pickle", accept_content=["pickle"])


@pytest.mark.parametrize("given", [URL, "postgresql://db.example/results?user=kim&password=secret"])
def test_the_password_is_shown_only_when_asked_for(given: str) -> None:
    backend = backend_of(f"chiffon+{given}")
    assert "secret" not in backend.as_uri()
    assert backend.as_uri(include_password=True) == given


def test_a_pickled_backend_is_the_same_backend() -> None:
    app = Celery("pickled", backend=f"chiffon+{URL}")
    app.conf.result_expires = 60
    again = pickle.loads(pickle.dumps(app.backend))  # noqa: S301
    assert (type(again), again.url, again.expires) == (PostgresBackend, app.backend.url, 60.0)


def test_retrying_follows_the_settings_of_celery() -> None:
    assert backend_of(f"chiffon+{URL}").always_retry
    assert not backend_of(f"chiffon+{URL}", result_backend_always_retry=False).always_retry


def test_what_kombu_can_say_comes_back_as_it_was() -> None:
    value = {
        "when": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        "id": uuid.UUID(int=7),
        "price": decimal.Decimal("1.50"),
        "bytes": b"\x00\xff",
        "text": "blåbær 🫐",
        "nothing": None,
    }
    assert decoded(encoded(value)) == value
    assert decoded(None) is None


@pytest.mark.parametrize(
    "value", [float("nan"), [float("-inf")], {"k": "a\x00b"}, {"\ud800": 1}, {1: "a", "1": "b"}, object(), 10**1001]
)
def test_what_postgres_cannot_keep_is_refused_by_an_encode_error(value: object) -> None:
    with pytest.raises(EncodeError):
        encoded(value)


def test_endless_nesting_is_refused_by_an_encode_error() -> None:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(EncodeError):
        encoded(deep)


def test_what_accompanies_a_result_is_put_into_words_rather_than_refused() -> None:
    assert encodable(float("nan")) == "nan"
    assert decoded(encoded_members({"args": ["a\x00b\ud800"], "retries": 1})) == {
        "args": r"['a\x00b\ud800']",
        "retries": 1,
    }
    assert encoded_members({}) is None


def chained(length: int, **above: Any) -> AsyncResult:
    """The result of the last task of a chain."""
    result = AsyncResult("task-0", backend=DisabledBackend(Celery(set_as_current=False)), **above)
    for number in range(1, length):
        result = AsyncResult(f"task-{number}", backend=result.backend, parent=result)
    return result


def test_a_short_chain_is_kept_as_celery_writes_it() -> None:
    group = GroupResult("group", [chained(3), chained(20)], parent=chained(10))
    assert tree_of(group) == group.as_tuple()


@pytest.mark.parametrize("length", [60, 500])
def test_of_a_long_chain_the_last_parents_are_kept(length: int) -> None:
    last = chained(length)
    for result in (last, GroupResult("g", [last], parent=last), GroupResult("g", [GroupResult("h", [last])])):
        assert encoded(tree_of(result))
    found = result_from_tuple(decoded(encoded(tree_of(last))), Celery(set_as_current=False))
    for number in range(length - 1, length - 30, -1):
        assert found.id == f"task-{number}"
        found = found.parent


def test_the_children_of_a_run_are_kept_with_a_long_chain_among_them() -> None:
    request = SimpleNamespace(children=[chained(60)])
    assert [found[0][0] for found in decoded(app().backend._children(request))] == ["task-59"]
