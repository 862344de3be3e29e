"""Several readers of a result: a reading of each in place of one feedback, and what an adjudicator settles."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
KEPT = "prediction_id, author, updated_at, verdicts, missed, no_fracture, comment, types, missed_types"


def upgrade() -> None:
    """Make the two tables; the feedback of before is the reading of its author."""
    for table, is_of_several in (("readings", True), ("settlements", False)):
        result = sa.ForeignKey("predictions.id", ondelete="CASCADE")
        op.create_table(
            table,
            sa.Column("prediction_id", sa.String(), result, primary_key=True),
            sa.Column("author", sa.String(), primary_key=is_of_several, nullable=False),
            sa.Column("updated_at", sa.Double(), nullable=False, index=True),
            sa.Column("verdicts", sa.JSON(), nullable=False),
            sa.Column("missed", sa.JSON(), nullable=False),
            sa.Column("no_fracture", sa.Boolean(), nullable=False),
            sa.Column("comment", sa.Text(), nullable=False),
            *(sa.Column(name, sa.JSON()) for name in ("types", "missed_types", "moved")),
            sa.Column("unreadable", sa.Boolean(), nullable=False),
            sa.Column("reason", sa.Text(), nullable=False),
            sa.Column("seconds", sa.Double()),
        )
    op.execute(f"INSERT INTO readings ({KEPT}, unreadable, reason) SELECT {KEPT}, FALSE, '' FROM feedback")  # nosec
    op.drop_table("feedback")
