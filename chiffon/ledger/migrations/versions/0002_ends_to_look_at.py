"""Ends to look at: lists of the tasks that did not succeed, however many did"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INDEX = "ix_tasks_ends_to_look_at"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _drop()  # one that could not be finished stays, and is of no use
        op.create_index(
            INDEX,
            "tasks",
            ["status", sa.literal_column("created_at DESC"), sa.literal_column("task_id DESC")],
            unique=False,
            postgresql_concurrently=True,
            postgresql_where=sa.text("status IN ('cancelled', 'dead_lettered', 'expired', 'failed', 'timed_out')"),
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _drop()


def _drop() -> None:
    op.drop_index(INDEX, table_name="tasks", if_exists=True, postgresql_concurrently=True)
