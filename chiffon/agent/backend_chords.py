"""Chords, by the set of their finished parts: no part counts twice, and the callback is applied once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from celery import maybe_signature, states
from celery.exceptions import ChordError
from celery.exceptions import TimeoutError as CeleryTimeout
from celery.utils.functional import _regen

from chiffon.agent.backend_values import decoded, encoded, tree_of
from chiffon.domain.errors import LedgerUnavailable
from chiffon.domain.trees import filled, leaves
from chiffon.ledger import groups, results
from chiffon.ledger.connect import Cursor
from chiffon.ledger.failures import CommitUnknown
from chiffon.ledger.results import StoredResult

logger = logging.getLogger(__name__)


class Chords:
    """The half of a backend that synchronises."""

    app: Any
    get_many: Callable[..., Iterator[tuple[str, dict[str, Any]]]]
    chord_error_from_stack: Callable[..., Any]
    encode_result: Callable[[Any, str], Any]
    _ensure_retryable: Callable[..., Any]
    _transaction: Callable[[], AbstractContextManager[Cursor]]
    _stored: Callable[..., StoredResult]

    outlasted: tuple[type[Exception], ...] = ()
    """What `release_chord` raises instead of failing the callback: its caller comes again once that has passed."""

    def apply_chord(self, header_result_args: tuple[Any, ...], body: Any, **kwargs: Any) -> None:
        """Make ready for a chord, before its header is published."""
        self._ensure_retryable(self._begin_chord, header_result_args[0], header_tree(*header_result_args))

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Say how many parts the chord has, before the last of them is published."""
        self._ensure_retryable(self._size_chord, group_id, chord_size)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        """Let a chord wait for one more task."""
        self._ensure_retryable(self._add_to_chord, chord_id, result.id, encoded(tree_of(result)))

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Note a part that has ended; whoever finishes the set applies the callback."""
        if not request.group or not request.id:
            return
        if self._ensure_retryable(_PartStep(self, request, state, result)):
            self.release_chord(request.group, maybe_signature(request.chord, app=self.app))

    def release_chord(self, group_id: str, callback: Any) -> None:
        """Apply the callback to what the header returned, or fail it as one that could not be applied.

        Only for whoever was told, by `results.finish_part`, that the chord is its to release.
        """
        try:
            values = self.header_values(group_id)
        except self.outlasted:
            raise
        except ChordError as error:
            logger.error("chord %s raised: %s", group_id, error)
            self.chord_error_from_stack(callback, error)
        except Exception as error:  # whatever it was, whoever waits for the callback must hear of it
            logger.exception("chord %s raised", group_id)
            self.chord_error_from_stack(callback, _chord_error(f"Join error: {error!r}", error))
        else:
            self._apply_callback(group_id, callback, values)
        try:
            self._ensure_retryable(self._forget_parts, group_id)
        except LedgerUnavailable as error:
            logger.warning("the parts of chord %s stay until they expire: %s", group_id, error)

    def header_values(self, group_id: str) -> list[Any]:
        """What the tasks of a released chord's header returned, in its order, a list within for each group in it.

        Raises:
            ChordError: one of them failed, or the header is not known.
            CeleryTimeout: a result is not there.
            LedgerUnavailable: nobody can say.
        """
        text = self._ensure_retryable(self._header, group_id)
        if text is None:
            raise ChordError(f"GroupResult {group_id} no longer exists")
        tree = decoded(text)
        metas = self._metas(set(leaves(tree)))
        for task_id in leaves(tree):
            if metas[task_id]["status"] in states.PROPAGATE_STATES:
                cause = metas[task_id]["result"]
                raise _chord_error(f"Dependency {task_id} raised {cause!r}", cause)
        values: list[Any] = filled(tree, {task_id: meta["result"] for task_id, meta in metas.items()})
        return values

    def _metas(self, task_ids: set[str]) -> dict[str, dict[str, Any]]:
        try:
            return dict(self.get_many(task_ids, timeout=self.app.conf.result_chord_join_timeout))
        except CeleryTimeout as error:
            if isinstance(error.__cause__, LedgerUnavailable):
                raise error.__cause__ from error
            raise

    def _apply_callback(self, group_id: str, callback: Any, values: list[Any]) -> None:
        try:
            self.app.amqp._retry_publish(callback.delay, values)
        except self.outlasted:
            raise
        except Exception as error:  # the broker may refuse in many ways, and the callback must not stay silent
            logger.exception("chord %s could not publish its callback", group_id)
            self.chord_error_from_stack(callback, _chord_error(f"Callback error: {error!r}", error))

    def _begin_chord(self, group_id: str, tree: str | None) -> None:
        with self._transaction() as cursor:
            groups.begin_chord(cursor, group_id, tree)

    def _add_to_chord(self, group_id: str, task_id: str, node: str) -> None:
        with self._transaction() as cursor:
            groups.add_to_chord(cursor, group_id, task_id, node)

    def _size_chord(self, group_id: str, size: int) -> None:
        with self._transaction() as cursor:
            results.size_chord(cursor, group_id, size)

    def _forget_parts(self, group_id: str) -> None:
        with self._transaction() as cursor:
            results.forget_parts(cursor, group_id)

    def _header(self, group_id: str) -> str | None:
        with self._transaction() as cursor:
            return groups.header(cursor, group_id)


def header_tree(group_id: str, nodes: Any) -> str | None:
    """The tree of a chord's header as JSON text; None if nobody knows it whole yet.

    One that comes from a generator is made while it is published: it may be large, or slow.
    """
    return None if isinstance(nodes, _regen) else encoded([[group_id, None], [tree_of(node) for node in nodes]])


class _PartStep:
    """The step that finishes a part; repeating it, after a commit without an answer, finds out what it had done."""

    __name__ = "finish_part"  # Celery names the step that it repeats

    def __init__(self, backend: Chords, request: Any, state: str, result: Any) -> None:
        self._backend = backend
        self._request = request
        self._state = state
        self._result = result
        # A run of this part that died before it had published the callback comes back as a redelivery.
        self._again = bool((request.delivery_info or {}).get("redelivered"))

    def __call__(self) -> bool:
        """Note the part. True: the callback is the caller's to apply."""
        group_id, task_id = self._request.group, self._request.id
        try:
            with self._backend._transaction() as cursor:
                self._keep_ignored(cursor)
                size = self._request.chord.get("chord_size")
                if results.finish_part(cursor, group_id, task_id, self._state, size):
                    return True
                return self._again and results.released_by(cursor, group_id, task_id)
        except CommitUnknown:
            self._again = True
            raise

    def _keep_ignored(self, cursor: Cursor) -> None:
        """Keep the result of a part that ignores its result: the callback is called with it all the same."""
        task_id, backend = self._request.id, self._backend
        found = results.fetch(cursor, task_id)
        if found is None or found.status not in results.FINAL:
            value = backend.encode_result(self._result, self._state)
            results.store(cursor, backend._stored(task_id, value, self._state, None, self._request))


def _chord_error(message: str, cause: object) -> ChordError:
    error = ChordError(message)
    if isinstance(cause, Exception):
        error.__cause__ = cause
    return error
