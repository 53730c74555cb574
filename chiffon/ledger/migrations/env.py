"""Alembic's way in: the caller brings the connection, so that nothing here reads a setting.

Each migration is a transaction of its own: one that builds an index beside work cannot be part of any.
"""

from alembic import context

from chiffon.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
