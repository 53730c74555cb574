"""Waiting for results, Celery's way in, woken by the ledger instead of polling."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Any

from celery import states
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.result import AsyncResult, ResultSet

from chiffon.domain.errors import LedgerUnavailable
from chiffon.ledger.listener import Listener

Meta = dict[str, Any]
"""What Celery knows of a task: ``task_id status result traceback children date_done`` and more."""

PATIENCE = 30.0
"""Seconds for which an operation is repeated while Postgres is away: a restart, or a failover, takes less."""

SHORTEST_TICK = 0.05
"""Seconds between two calls of ``on_interval``, at least: with an ``interval`` of 0 a waiter would never rest."""


class Waiting:
    """The half of a backend that waits. Durations are seconds; a ``timeout`` of None is for ever."""

    supports_native_join = True
    is_async = True  # a result that is waited for, alone or in a set, is told that it is ready

    listener: Listener
    _just_read: threading.local
    _read_many: Callable[[Iterable[str]], dict[str, Meta]]
    _repeat: Callable[..., Any]
    _ensure_not_eager: Callable[[], None]

    def add_pending_result(self, result: Any, weak: bool = False, start_drainer: bool = True) -> Any:
        """Nothing is to be prepared for a result that will be waited for."""
        return result

    def remove_pending_result(self, result: Any) -> Any:
        """Nothing is kept for it."""
        return result

    def wait_for_pending(
        self,
        result: AsyncResult,
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Meta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        callback: Callable[[str, Any], Any] | None = None,
        propagate: bool = True,
    ) -> Any:
        """The value of ``result`` once it is ready, for `AsyncResult.get`. Raises CeleryTimeout, and what it raised."""
        each_interval = self._with_ancestors(_ancestors(result), on_interval)
        for _, meta in self.get_many([result.id], timeout, interval, no_ack, on_message, each_interval):
            _fulfil(result, meta)
        return result.maybe_throw(callback=callback, propagate=propagate)

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> Meta:
        """What is known of a task once it is ready. Raises CeleryTimeout."""
        return next(meta for _, meta in self.get_many([task_id], timeout, interval, no_ack, None, on_interval))

    def iter_native(
        self,
        result: ResultSet,
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Meta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """Each result of a set as it becomes ready, with its meta; a set within it at once, with its results.

        A failure of what was to run before the set is raised: without it, the set would be waited for in vain.
        """
        self._ensure_not_eager()
        waiting: dict[str, list[AsyncResult]] = {}
        for node in result.results:
            if isinstance(node, ResultSet):
                yield node.id, node.results
            elif node._cache:
                yield node.id, node._cache
            else:
                waiting.setdefault(node.id, []).append(node)
        ancestors = _ancestors(result, *(node for nodes in waiting.values() for node in nodes))

        def check() -> None:
            for ancestor in ancestors:
                ancestor.maybe_throw()
            if on_interval is not None:
                on_interval()

        each_interval = self._with_ancestors(ancestors, check) if ancestors else on_interval
        for task_id, meta in self.get_many(waiting, timeout, interval, no_ack, on_message, each_interval):
            for node in waiting[task_id]:
                _fulfil(node, meta)
            yield task_id, meta

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[Meta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = states.READY_STATES,  # noqa: N803 -- Celery's name for it
    ) -> Iterator[tuple[str, Meta]]:
        """Each task's meta as it becomes ready.

        Args:
            task_ids: which.
            timeout: after so long CeleryTimeout is raised; 0 looks once.
            interval: how often ``on_interval`` is called; it has no bearing on how soon a result is seen.
            no_ack: of no meaning here.
            on_message: called with each meta that is new, those of states that are not ready too.
            on_interval: called while it waits; what it raises ends the waiting.
            max_iterations: how many looks to take before it stops without a word.
            READY_STATES: what counts as ready.
        """
        missing = {str(task_id) for task_id in task_ids}
        deadline = None if timeout is None else time.monotonic() + timeout
        heard: dict[str, tuple[str, Any]] = {}
        with contextlib.closing(self._looks(missing, deadline, interval, on_interval)) as looks:
            for number, look in enumerate(looks, 1):
                for task_id, meta in self._read_until(look, deadline).items():
                    news = (meta["status"], meta["result"])
                    if on_message is not None and heard.get(task_id) != news:
                        heard[task_id] = news
                        on_message(meta)
                    if meta["status"] in READY_STATES:
                        missing.discard(task_id)
                        yield task_id, meta
                if not missing or number == max_iterations:
                    return

    def get_task_meta(self, task_id: str, cache: bool = True) -> Meta:
        """What is known of a task."""
        known: dict[str, Meta] = getattr(self._just_read, "metas", {})
        found: Meta = known.get(task_id) or super().get_task_meta(task_id, cache=cache)  # type: ignore[misc]
        return found

    def _with_ancestors(
        self, ancestors: list[AsyncResult], on_interval: Callable[[], Any] | None
    ) -> Callable[[], Any] | None:
        """``on_interval``, before which the results that are to be there first are read, all of them at once.

        Celery's own check, which is in it, asks for one after the other: those of a chord's header may be thousands.
        """
        if not ancestors or on_interval is None:
            return on_interval

        def read_and_call() -> None:
            pending = [ancestor for ancestor in ancestors if ancestor._cache is None]
            read = self._read_until(frozenset(a.id for a in pending), None)
            self._just_read.metas = {
                a.id: read.get(a.id) or {"status": states.PENDING, "result": None, "task_id": a.id} for a in pending
            }
            try:
                on_interval()
            finally:
                del self._just_read.metas

        return read_and_call

    def _looks(
        self,
        missing: set[str],
        deadline: float | None,
        interval: float | None,
        on_interval: Callable[[], Any] | None,
    ) -> Generator[frozenset[str], None, None]:
        """Yield the ids that are worth reading: all, all again once it listens, then those of which there is news."""
        if self.listener.session is None or _left(deadline) <= 0:
            yield frozenset(missing)  # for what is there already nobody need begin to listen
        if _left(deadline) <= 0:
            raise CeleryTimeout("The operation timed out.")
        tick = float("inf") if on_interval is None else max(SHORTEST_TICK, 0.5 if interval is None else interval)
        with self.listener.subscribe(missing) as ear:
            yield frozenset(missing)
            due = time.monotonic() + tick
            while _left(deadline) > 0:
                pause = min(_left(deadline), due - time.monotonic())
                news = ear.wait(None if pause == float("inf") else pause) & missing
                if on_interval is not None and (news or time.monotonic() >= due):
                    due = time.monotonic() + tick
                    on_interval()
                if news:
                    yield news
            yield frozenset(missing)  # a result that is there outranks a time that is over
        raise CeleryTimeout("The operation timed out.")

    def _read_until(self, task_ids: frozenset[str], deadline: float | None) -> dict[str, Meta]:
        """Read, through a restart of Postgres if need be. Raises CeleryTimeout when the deadline comes first."""
        until = time.monotonic() + min(PATIENCE, max(0.0, _left(deadline)))
        try:
            found: dict[str, Meta] = self._repeat(partial(self._read_many, task_ids), until=until)
            return found
        except LedgerUnavailable as error:
            if _left(deadline) <= 0:
                raise CeleryTimeout(f"The operation timed out, and {error}") from error
            raise


def _left(deadline: float | None) -> float:
    return float("inf") if deadline is None else deadline - time.monotonic()


def _fulfil(result: AsyncResult, meta: Meta) -> None:
    """Tell a result object that it is ready, once; others may share ``meta``."""
    if result._cache is None:
        result._maybe_set_cache(dict(meta))


def _ancestors(*results: Any) -> list[AsyncResult]:
    """The tasks whose results must be there before these can be."""
    found: dict[str, AsyncResult] = {}
    stack = [result.parent for result in results]
    while stack:
        node = stack.pop()
        if isinstance(node, ResultSet):
            stack.extend(node.results)
        elif node is not None and node.id not in found:
            found[node.id] = node
            stack.append(node.parent)
    return list(found.values())
