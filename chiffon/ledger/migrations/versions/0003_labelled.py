"""Labelled: the index of labels holds the tasks that have some"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INDEX, BEFORE = "ix_tasks_labelled", "ix_tasks_labels"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _make(INDEX, postgresql_where=sa.text("labels <> '{}'"))
        _drop(BEFORE)  # until the release before is gone, it lists by label without an index: slowly, and all of it


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _make(BEFORE)
        _drop(INDEX)


def _make(name: str, **options: Any) -> None:
    _drop(name)  # one that could not be finished stays, and is of no use
    op.create_index(
        name,
        "tasks",
        ["labels"],
        unique=False,
        postgresql_concurrently=True,
        postgresql_using="gin",
        postgresql_ops={"labels": "jsonb_path_ops"},
        **options,
    )


def _drop(name: str) -> None:
    op.drop_index(name, table_name="tasks", if_exists=True, postgresql_concurrently=True)
