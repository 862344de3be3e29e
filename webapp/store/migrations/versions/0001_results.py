"""Results and their boxes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first two tables."""
    op.create_table(
        "predictions",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("created_at", sa.Double(), nullable=False, index=True),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("model_sha256", sa.String()),
        sa.Column("operating_score", sa.Double(), nullable=False),
        sa.Column("possible_score", sa.Double(), nullable=False),
        sa.Column("latency_ms", sa.JSON(), nullable=False),
    )
    op.create_table(
        "detections",
        sa.Column("prediction_id", sa.String(), sa.ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("x0", "y0", "x1", "y1", "score")),
        sa.Column("label", sa.String(), nullable=False),
    )
