"""Statements that a session of one's own plans once: to plan the longest takes longer than to run it for ten rows."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg2

from chiffon.ledger.connect import Cursor
from chiffon.ledger.failures import OUTDATED

GOOD_FOR = 10.0
"""Seconds for which a plan is good. Tables grow, and Postgres itself looks at that about once a minute."""

_PARAMETER = re.compile(r"%\((\w+)\)s(::[\w\[\]]+)?")


class _Numbers(dict[str, str]):
    """Gives each name that it is asked for the next number, as PREPARE wants its parameters."""

    def __missing__(self, name: str) -> str:
        self[name] = f"${len(self) + 1}"
        return self[name]


@dataclass(frozen=True)
class Planned:
    """A statement, with parameters as psycopg2 writes them (``%(name)s``).

    ``name``: what its session calls it, and how it shows in ``pg_stat_activity``. ``before``: statements that go before
    it, in the same round trip. All parameters must have a type that Postgres can tell from the statement itself.
    """

    name: str
    text: str
    before: tuple[Planned, ...] = ()

    def execute(self, cursor: Cursor, values: Mapping[str, Any]) -> None:
        """Run it; the rows are those of the statement itself.

        Behind a pooler nothing can be planned: there the session is somebody else's a moment later.
        """
        planned: dict[str, float] | None = getattr(cursor.connection, "planned", None)
        if planned is None:
            cursor.execute(self.whole, values)
            return
        try:
            self._plan(cursor, planned)
            cursor.execute(self._calls, values)
        except psycopg2.Error as error:
            if error.pgcode in OUTDATED:
                cursor.connection.planned = None  # whoever has it next need not fail over the same
            raise

    def _plan(self, cursor: Cursor, planned: dict[str, float]) -> None:
        """Plan what has to be, in one round trip. ``planned``: by name, when each was planned."""
        now = time.monotonic()
        parts = (*self.before, self)
        if due := [part for part in parts if now - planned.get(part.name, -math.inf) >= GOOD_FOR]:
            outdated = [f"DEALLOCATE chiffon_{part.name}" for part in due if part.name in planned]
            try:
                cursor.execute("; ".join([*(outdated if planned else ["DEALLOCATE ALL"]), *(p._prepare for p in due)]))
            except psycopg2.Error:
                planned.clear()  # some of them may be done, and a rollback undoes none: begin anew
                raise
            planned.update((part.name, now) for part in due)

    @cached_property
    def whole(self) -> str:
        """The statement and what goes before it, as one text."""
        return ";\n".join([*(part.text for part in self.before), f"{self.mark} {self.text}"])

    @property
    def mark(self) -> str:
        """What stands before it, wherever it is run."""
        return f"/* {self.name} */"

    @cached_property
    def _calls(self) -> str:
        return "; ".join([*(part._call for part in self.before), f"{self.mark} {self._call}"])

    @property
    def _prepare(self) -> str:
        return f"PREPARE chiffon_{self.name} AS {self.text % _Numbers()}"

    @property
    def _call(self) -> str:
        # Each with the type that the statement gives it: what EXECUTE is called with is not converted to it.
        first: dict[str, str] = {}
        for name, cast in _PARAMETER.findall(self.text):
            first.setdefault(name, f"%({name})s{cast}")
        return f"EXECUTE chiffon_{self.name}" + (f" ({', '.join(first.values())})" if first else "")


ONE_BY_ONE = "OFFSET 0"
"""Ends a LATERAL subquery that looks one row up: as it stands, and not by way of whatever index seems small today."""

NOW = "(SELECT clock_timestamp())"
"""The time at which a statement asks: each row's own would be found by reading them all, and not by an index."""

LOOKING_UP = Planned(
    "looking_up",
    "SELECT set_config(name, setting, true) FROM (VALUES ('plan_cache_mode', 'force_generic_plan'),"
    " ('enable_seqscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off')) AS s (name, setting)",
)
"""Goes before a statement that looks rows up, on a session that does other things too (see `connect`)."""

DURABLY = Planned(
    "durably",
    "SELECT set_config('synchronous_commit', 'on', true)"
    " WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')",
)
"""Goes before a statement whose commit is a promise (guarantees 1 and 2), for a server's default may be less.

For this transaction only, and with the statement itself: a session's setting is nobody's behind a pooler.
"""

AT_LEISURE = Planned("at_leisure", "SELECT set_config('synchronous_commit', 'off', true)")
"""Goes before a statement whose loss in a crash of Postgres costs nothing: nobody waits for the disk."""

IN_A_HURRY = Planned("in_a_hurry", "SELECT set_config('lock_timeout', '200ms', true)")
"""Goes before a statement that others wait for: one row that somebody holds must not hold them all up."""
