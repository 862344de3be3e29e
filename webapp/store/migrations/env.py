"""What Alembic runs: the migrations on the connection that the database has opened."""

from alembic import context

# Both are handed over, so that this file does not depend on the name under which the package was installed.
attributes = context.config.attributes
context.configure(connection=attributes["connection"], target_metadata=attributes["metadata"])
with context.begin_transaction():
    context.run_migrations()
