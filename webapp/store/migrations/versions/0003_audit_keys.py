"""The audit log: which key signed a line; SQLite refuses what REPLACE would put in the place of one."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column, empty for the lines of before, and the trigger."""
    op.add_column("audit", sa.Column("key", sa.String()))
    if op.get_bind().dialect.name == "sqlite":
        # REPLACE deletes the former line without the trigger on DELETE; this one comes before it.
        op.execute(
            "CREATE TRIGGER audit_refuses_insert BEFORE INSERT ON audit"
            " WHEN NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM audit)"
            " BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
