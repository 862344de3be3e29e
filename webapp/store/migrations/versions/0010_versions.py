"""The version that answered, of a registry of detectors, and what a shadow said beside it."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the column, empty for the results of before, and the table."""
    op.add_column("predictions", sa.Column("model_version", sa.String()))
    op.create_table(
        "shadow_answers",
        sa.Column("prediction_id", sa.String(), sa.ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("version", sa.String(), primary_key=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("model_sha256", sa.String()),
        sa.Column("finding", sa.String(), nullable=False),
        sa.Column("confidence", sa.Double()),
        sa.Column("operating_score", sa.Double(), nullable=False),
        sa.Column("possible_score", sa.Double(), nullable=False),
        sa.Column("calibrated", sa.Boolean(), nullable=False),
        sa.Column("boxes", sa.JSON(), nullable=False),
    )
