"""The watch: the values of each result's picture, and the counts of each day, which stay when its results expire."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the column, empty for the results of before, and the table."""
    op.add_column("predictions", sa.Column("features", sa.JSON()))
    op.create_table(
        "watch_days",
        sa.Column("day", sa.String(), primary_key=True),
        sa.Column("model_sha256", sa.String(), primary_key=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
    )
