"""Groups of results, and the headers of chords: which tasks are in them, in which order."""

from __future__ import annotations

from chiffon.domain.trees import leaves
from chiffon.domain.values import parse
from chiffon.ledger.connect import Cursor
from chiffon.ledger.results import ADDED, Part, finish_parts

TWIN = "TWIN"
"""The status of a finished part that stands for a task's second place in a header."""

# name: save group  -- (none) | saved -> saved
_SAVE_GROUP = """
INSERT INTO result_groups (group_id, result) VALUES (%(group_id)s, %(tree)s::jsonb)
ON CONFLICT (group_id) DO UPDATE SET result = excluded.result, date_done = clock_timestamp()
"""

# name: restore group  -- reads the tree of a group's results
_RESTORE_GROUP = "SELECT result::text FROM result_groups WHERE group_id = %(group_id)s"

# name: delete group  -- saved -> (none)
_DELETE_GROUP = "DELETE FROM result_groups WHERE group_id = %(group_id)s"

# name: make header  -- (none) -> the tree of the parts that have ended, in the order that their messages said
# A header that is made while it is published has no other: nobody knew it whole.
_MAKE_HEADER = f"""
INSERT INTO result_groups (group_id, result)
SELECT p.group_id, jsonb_build_array(
         jsonb_build_array(p.group_id, NULL),
         jsonb_agg(jsonb_build_array(jsonb_build_array(p.task_id, NULL), NULL)
                   ORDER BY coalesce(r.meta ->> 'group_index', t.canvas #>> '{{headers,group_index}}')::int,
                            p.created_at, p.task_id))
  FROM chord_parts p LEFT JOIN results r USING (task_id) LEFT JOIN tasks t USING (task_id)
 WHERE p.group_id = %(group_id)s AND p.status NOT IN ('{ADDED}', '{TWIN}')
 GROUP BY p.group_id
ON CONFLICT (group_id) DO UPDATE SET date_done = clock_timestamp()
RETURNING result::text
"""

# name: forget run  -- the parts of a header's earlier run, which was released, say nothing of the next
_FORGET_RUN = """
DELETE FROM chord_parts p USING chords c
 WHERE c.group_id = %(group_id)s AND p.group_id = c.group_id AND c.released_at IS NOT NULL
"""

# name: begin chord  -- (none) | released -> waiting; one that waits goes on waiting
_BEGIN_CHORD = """
INSERT INTO chords AS c (group_id) VALUES (%(group_id)s)
ON CONFLICT (group_id) DO UPDATE SET size = NULL, released_at = NULL, created_at = clock_timestamp()
 WHERE c.released_at IS NOT NULL
"""

# name: await another  -- a chord waits for one more part, once for each task that is added to it
_AWAIT_ANOTHER = f"""
INSERT INTO chord_parts (group_id, task_id, status) VALUES (%(group_id)s, 'added ' || md5(%(task_id)s), '{ADDED}')
ON CONFLICT (group_id, task_id) DO NOTHING
"""

# name: append to header  -- its result comes last
_APPEND_TO_HEADER = """
UPDATE result_groups SET result = jsonb_set(result, '{1}', (result -> 1) || jsonb_build_array(%(node)s::jsonb))
 WHERE group_id = %(group_id)s
"""


def save_group(cursor: Cursor, group_id: str, tree: str) -> None:
    """Keep the tree (JSON text, see `domain.trees`) of a group's results."""
    cursor.execute(_SAVE_GROUP, {"group_id": group_id, "tree": tree})


def restore_group(cursor: Cursor, group_id: str) -> str | None:
    """The tree of a group's results as JSON text, or None if it was not saved."""
    cursor.execute(_RESTORE_GROUP, {"group_id": group_id})
    row = cursor.fetchone()
    return row[0] if row else None


def delete_group(cursor: Cursor, group_id: str) -> None:
    """Remove a saved group; its tasks' results stay."""
    cursor.execute(_DELETE_GROUP, {"group_id": group_id})


def begin_chord(cursor: Cursor, group_id: str, tree: str | None) -> None:
    """Make ready for a chord, before any part of it is published.

    ``tree``: of its header; None if that is made only while it is published. A task that the header names twice ends
    once: its second place is counted as a finished part from the start.
    """
    cursor.execute(_FORGET_RUN, {"group_id": group_id})
    cursor.execute(_BEGIN_CHORD, {"group_id": group_id})
    if tree is None:
        delete_group(cursor, group_id)
        return
    save_group(cursor, group_id, tree)
    names = list(leaves(parse(tree)))
    twins = len(names) - len(set(names))
    if twins:
        finish_parts(cursor, [Part(group_id, f"twin {number}", TWIN) for number in range(twins)])


def add_to_chord(cursor: Cursor, group_id: str, task_id: str, node: str) -> None:
    """Let a chord wait for one more task, by one of its own that still runs. ``node``: its place in the tree, as JSON.

    Repeating it is harmless.
    """
    cursor.execute(_AWAIT_ANOTHER, {"group_id": group_id, "task_id": task_id})
    if cursor.rowcount:
        cursor.execute(_APPEND_TO_HEADER, {"group_id": group_id, "node": node})


def header(cursor: Cursor, group_id: str) -> str | None:
    """The tree of a released chord's header as JSON text; None if nothing is known of it."""
    tree = restore_group(cursor, group_id)
    if tree is None:
        cursor.execute(_MAKE_HEADER, {"group_id": group_id})
        row = cursor.fetchone()
        tree = row[0] if row else None
    return tree
