"""The result backend: Celery's results in Postgres, for any Celery application.

``result_backend = "chiffon+postgresql://user@host/database"``, or the class itself, which takes
``CHIFFON_DATABASE_URL``. A database that is still empty is given the ledger's tables at the first use.
"""

from __future__ import annotations

import itertools
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from celery import states
from celery._state import get_current_task
from celery.backends.base import Backend
from celery.exceptions import ImproperlyConfigured
from celery.result import result_from_tuple
from celery.utils.time import get_exponential_backoff_interval
from kombu.exceptions import EncodeError

from chiffon.agent.backend_chords import Chords
from chiffon.agent.backend_values import clean, decoded, encodable, encoded, encoded_members, tree_of
from chiffon.agent.backend_waiting import PATIENCE, Meta, Waiting
from chiffon.config import SettingsError, settings, validated_database_url
from chiffon.domain.errors import LedgerUnavailable
from chiffon.ledger import address, expiry, groups, migrate, results
from chiffon.ledger.connect import Cursor, Ledger
from chiffon.ledger.failures import LostRace, RefusedData
from chiffon.ledger.listener import Listener, listener_at
from chiffon.ledger.results import StoredResult

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 1_000
"""Milliseconds between two tries, where Celery's settings do not say otherwise."""

_BATCH = 1_000
"""Rows that one transaction of `cleanup` deletes."""

_OWN_COLUMNS = frozenset({"status", "result", "traceback", "children", "date_done"})

_prepared: set[str] = set()
"""The URLs at which this process, or the one it was forked from, has found the schema that it needs."""


class PostgresBackend(Waiting, Chords, Backend):
    """States, results, groups and chords in Postgres: one upsert a write, woken instead of polling, JSON only.

    Safe to share between threads and after a fork. Instances with the same URL share one pool a process.
    """

    supports_failure_expires = True

    def __init__(self, app: Any, url: str | None = None, expires: Any = None, **options: Any) -> None:
        super().__init__(app=app, url=url, expires=expires, expires_type=float, **options)
        if self.serializer != "json":
            raise ImproperlyConfigured(
                f"PostgresBackend keeps JSON, and result_serializer is {self.serializer!r}: set it to 'json'"
            )
        conf = app.conf
        self.thread_safe = True
        if not conf.value_set_for("result_backend_always_retry"):
            self.always_retry = True
        if not conf.value_set_for("result_backend_max_sleep_between_retries_ms"):
            self.max_sleep_between_retries_ms = _LONGEST_PAUSE
        failure_expires = conf.get("result_failure_expires")
        self.failure_expires = self.expires if failure_expires is None else self.prepare_expires(failure_expires, float)
        self._just_read = threading.local()
        self._given_url = url
        self.url, self._direct_url = _urls(url)

    @property
    def ledger(self) -> Ledger:
        """The pool that every step takes its connection from."""
        return _ledger_at(self.url)

    @property
    def listener(self) -> Listener:  # type: ignore[override]
        """What wakes who waits."""
        return listener_at(self._direct_url)

    def as_uri(self, include_password: bool = False) -> str:
        """The URL as it may be shown: without the password, unless that is asked for."""
        shown = str(self.url).replace("+psycopg2", "", 1)
        if include_password:
            return shown
        shown = re.sub(r"(://[^:/@?]*):[^@/]*@", r"\1:**@", shown)
        return re.sub(r"([?&]password=)[^&]*", r"\1**", shown)

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Whether repeating may help: when Postgres is away, or let another go first; not when it refused the data."""
        return isinstance(exc, LedgerUnavailable | LostRace)

    def encode(self, data: Any) -> str:
        """JSON text that Postgres can keep. Raises EncodeError, by which Celery makes the task a FAILURE."""
        return encoded(data)

    def decode(self, payload: str | None) -> Any:
        """What `encode` was given."""
        return decoded(payload)

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        """An exception as JSON: arguments that have none are put into words."""
        prepared = super().prepare_exception(exc, serializer)
        if isinstance(prepared, dict):
            prepared["exc_message"] = tuple(encodable(argument) for argument in exc.args)
        return prepared

    def current_task_children(self, request: Any = None) -> Any:
        """What the task that runs, or the given one's run, has called."""
        request = request or getattr(get_current_task(), "request", None)
        return [tree_of(child) for child in getattr(request, "children", None) or ()] if request else None

    def task_result_exists(self, task_id: str) -> bool:
        """Whether anything is known of the task; unlike PENDING, it tells work that waits from an unknown id."""
        found: StoredResult | None = self._ensure_retryable(self._fetch, task_id)
        return found is not None

    def cleanup(self) -> None:
        """Delete what is older than ``result_expires`` says, a thousand rows at a time."""
        if self.expires:
            ages = {"age": self.expires, "failure_age": self.failure_expires or self.expires}
            self._expire(expiry.expire_results, **ages)
            self._expire(expiry.expire_groups, age=self.expires)
        chord_expires = self.app.conf.get("result_chord_expires")
        chord_age = self.expires if chord_expires is None else self.prepare_expires(chord_expires, float)
        if chord_age:
            self._expire(expiry.expire_chords, age=chord_age)

    def __reduce__(self, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return super().__reduce__(args, {"url": self._given_url, "expires": self.expires, **(kwargs or {})})

    # What Celery's base class asks of a backend:

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: Any = None, request: Any = None, **kwargs: Any
    ) -> Any:
        row = self._stored(task_id, result, state, traceback, request)
        try:
            with self._transaction() as cursor:
                results.store(cursor, row)
        except RefusedData as error:
            raise EncodeError(f"the result of {task_id} cannot be kept: {error}") from error
        return result

    def _get_task_meta_for(self, task_id: str) -> Meta:
        row = self._fetch(task_id)
        return self._meta(row or StoredResult(task_id, states.PENDING))

    def _forget(self, task_id: str) -> None:
        with self._transaction() as cursor:
            results.forget(cursor, task_id)

    def _save_group(self, group_id: str, result: Any) -> Any:
        with self._transaction() as cursor:
            groups.save_group(cursor, group_id, encoded(tree_of(result)))
        return result

    def _restore_group(self, group_id: str) -> Meta | None:
        with self._transaction() as cursor:
            tree = groups.restore_group(cursor, group_id)
        if tree is None:
            return None
        return {"task_id": group_id, "result": result_from_tuple(decoded(tree), self.app)}

    def _delete_group(self, group_id: str) -> None:
        with self._transaction() as cursor:
            groups.delete_group(cursor, group_id)

    def _ensure_retryable(
        self,
        func: Callable[..., Any],
        *args: Any,
        fallback_exc: Callable[[str | None], BaseException] | None = None,
        fallback_msg: str | None = None,
        max_retries: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call, and again while Postgres is away: not for ever, since the worker's main process may be the caller."""
        try:
            return self._repeat(
                lambda: func(*args, **kwargs),
                until=time.monotonic() + PATIENCE,
                limit=self.max_retries if max_retries is None else max_retries,
            )
        except (LedgerUnavailable, LostRace) as error:
            if fallback_exc is None or not self.always_retry:
                raise
            raise fallback_exc(f"{fallback_msg}: {error}") from error

    # The steps beneath:

    @contextmanager
    def _transaction(self) -> Iterator[Cursor]:
        """One transaction on the pool, in a ledger that has its tables. Raises SchemaBehind, LedgerUnavailable."""
        self._prepare()
        with self.ledger.transaction() as cursor:
            yield cursor

    @contextmanager
    def _statements(self) -> Iterator[Cursor]:
        """As `_transaction`, each statement one of its own: a reader waits for one answer instead of three."""
        self._prepare()
        with self.ledger.statements() as cursor:
            yield cursor

    def _prepare(self) -> None:
        if self.url not in _prepared:
            migrate.make_if_empty(self.url)
            with self.ledger.transaction() as cursor:
                migrate.require_current(cursor)
            _prepared.add(self.url)

    def _repeat(self, step: Callable[[], Any], *, until: float, limit: float = float("inf")) -> Any:
        """Take a step, and again while Postgres is away, up to ``limit`` times and until the monotonic time given."""
        for retries in itertools.count():
            try:
                return step()
            except (LedgerUnavailable, LostRace) as error:
                left = until - time.monotonic()
                if not self.always_retry or retries >= limit or left <= 0:
                    raise
                pause = get_exponential_backoff_interval(
                    self.base_sleep_between_retries_ms, retries, self.max_sleep_between_retries_ms, True
                )
                logger.warning("%s; trying again, for up to %.0f s", error, left)
                self._sleep(min(pause / 1000, left))
        raise AssertionError("count() has no end")

    def _fetch(self, task_id: str) -> StoredResult | None:
        with self._statements() as cursor:
            return results.fetch(cursor, str(task_id))

    def _read_many(self, task_ids: Iterable[str]) -> dict[str, Meta]:
        with self._statements() as cursor:
            rows = results.fetch_many(cursor, list(task_ids))
        return {task_id: self._meta(row) for task_id, row in rows.items()}

    def _stored(self, task_id: str, result: Any, state: str, traceback: Any, request: Any) -> StoredResult:
        """The row to keep. Raises EncodeError if it is the result that has no JSON."""
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        if getattr(request, "group_index", None) is not None:
            meta["group_index"] = request.group_index
        return StoredResult(
            task_id=str(task_id),
            status=state,
            result=encoded(result),
            traceback=None if traceback is None else clean(str(traceback)),
            children=None if meta["children"] is None else encoded(meta["children"]),
            meta=encoded_members({name: value for name, value in meta.items() if name not in _OWN_COLUMNS}),
        )

    def _meta(self, row: StoredResult) -> Meta:
        meta: Meta = decoded(row.meta) or {}
        meta |= {
            "task_id": row.task_id,
            "status": row.status,
            "result": decoded(row.result),
            "traceback": row.traceback,
            "children": decoded(row.children),
            "date_done": row.date_done and row.date_done.isoformat(),
        }
        found: Meta = self.meta_from_decoded(meta)
        return found

    def _expire(self, step: Callable[..., expiry.Batch], **ages: float) -> None:
        after = expiry.START
        while True:
            batch = self._ensure_retryable(self._expire_batch, step, after, ages)
            if batch.deleted < _BATCH:
                return
            after = batch.newest

    def _expire_batch(self, step: Callable[..., expiry.Batch], after: str, ages: dict[str, float]) -> expiry.Batch:
        with self._transaction() as cursor:
            return step(cursor, limit=_BATCH, after=after, **ages)


@cache
def _ledger_at(url: str) -> Ledger:
    return Ledger(url)


def _urls(given: str | None) -> tuple[str, str]:
    """The database's URL, and the one by which a session may LISTEN; the settings' own where none is given."""
    try:
        if given is None or not given.partition("://")[2].strip("/"):
            address.check(settings())
            return settings().database_url, settings().direct_url
        url = validated_database_url(given)
        address.check_url(url)
    except SettingsError as error:
        raise ImproperlyConfigured(f"the result backend's database: {error}") from None
    return url, url
