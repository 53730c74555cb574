"""Millions of settled tasks, made of one that was really done: each table's row is copied under new ids and times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.contenders import Database

TABLES = ("tasks", "executions", "results", "task_history", "request_keys")
"""Where a settled task leaves rows."""

SPACING = 0.5
"""Seconds between two tasks: five million are a month of work."""

_CHUNK = 250_000

_MILLISECONDS = "(extract(epoch FROM moment) * 1000)::bigint"
_HEX = f"lpad(to_hex({_MILLISECONDS}), 12, '0') || '7' || substr(md5('task' || n), 1, 3) || '8' || "
_NEW = {
    "task_id": f"({_HEX} substr(md5('task' || n), 4, 15))::uuid::text",  # UUIDv7: in the order of time
    "request_id": "md5('request' || n)::uuid::text",
    "trace_id": "md5('trace' || n)",
    "labels": "jsonb_build_object('customer', (n %% 1000)::text)",
}
"""What a copy has instead of the original's value; moments are shifted, all else is as it was."""


def multiply(database: Database, task_id: str, first: int, last: int, months_ago: float = 1.1) -> None:
    """Copy the settled task ``task_id`` as the tasks number ``first`` to ``last``, of which the last is the newest."""
    columns = {table: _columns(database, table) for table in TABLES}
    begin = database(
        "SELECT created_at, now() - make_interval(days => %s) - created_at FROM tasks WHERE task_id = %s",
        int(months_ago * 30),
        task_id,
    )[0]
    with _without_indexes(database):
        for table in TABLES:
            for start in range(first, last + 1, _CHUNK):
                statement = _copy(table, columns[table])
                database(statement, begin[1], SPACING, task_id, start, min(start + _CHUNK - 1, last))
    for table in TABLES:
        database(f"VACUUM ANALYZE {table}")
    database("CHECKPOINT")


def _copy(table: str, columns: dict[str, str]) -> str:
    """The statement that fills one table."""
    values = []
    for name, kind in columns.items():
        if name in _NEW:
            values.append(_NEW[name])
        elif kind.startswith("timestamp"):
            values.append(f"o.{name} + shift")
        else:
            values.append(f"o.{name}")
    return (
        f"WITH moved AS (SELECT %s::interval AS past, %s::float8 AS spacing, %s::text AS original)"
        f" INSERT INTO {table} ({', '.join(columns)})"
        f" SELECT {', '.join(values)} FROM moved, generate_series(%s, %s) AS n,"
        " LATERAL (SELECT past + make_interval(secs => spacing * n) AS shift) AS s,"
        " LATERAL (SELECT created_at + shift AS moment FROM tasks WHERE task_id = original) AS m,"
        f" {table} AS o WHERE o.task_id = original ORDER BY n"
    )


def _columns(database: Database, table: str) -> dict[str, str]:
    """The columns of a table, with their types."""
    return dict(
        database(
            "SELECT column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'public' AND table_name = %s AND is_generated = 'NEVER' ORDER BY ordinal_position",
            table,
        )
    )


@contextmanager
def _without_indexes(database: Database) -> Iterator[None]:
    """Drop meanwhile the indexes that hold every row and in no order: building them at once is much faster."""
    found = database(
        "SELECT c.relname, pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_class t ON t.oid = i.indrelid JOIN pg_am a ON a.oid = c.relam"
        " WHERE t.relname = ANY(%s) AND NOT i.indisunique AND (i.indpred IS NULL OR a.amname = 'gin')",
        list(TABLES),
    )
    for name, _ in found:
        database(f"DROP INDEX {name}")
    yield
    for _, definition in found:
        database(definition)
