"""Alembic's way in: the caller brings the connection, so that nothing here reads a setting."""

from alembic import context

from chiffon.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
