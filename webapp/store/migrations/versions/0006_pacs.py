"""The queue of the node beside a PACS: studies, received objects, and what is sent back."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the three tables."""
    op.create_table(
        "pacs_studies",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("uid", sa.String(), nullable=False, unique=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("due_at", sa.Double(), index=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("content_sha256", sa.String()),
        sa.Column("feedback_at", sa.Double()),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("problem", sa.String()),
    )
    op.create_table(
        "pacs_objects",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("study_id", sa.String(), sa.ForeignKey("pacs_studies.id"), nullable=False, index=True),
        sa.Column("sop_instance_uid", sa.String(), nullable=False, unique=True),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("sop_class_uid", "sha256")),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False, index=True),
        sa.Column("state", sa.String(), nullable=False, index=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Double(), nullable=False),
        sa.Column("problem", sa.String()),
        sa.Column("result", sa.JSON()),
        sa.Column("prediction_id", sa.String(), index=True),
        sa.Column("kept", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "pacs_deliveries",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("study_id", sa.String(), sa.ForeignKey("pacs_studies.id"), index=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("destination", sa.String(), nullable=False, index=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("control", sa.String(), nullable=False, index=True),
        sa.Column("state", sa.String(), nullable=False, index=True),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("attempts", "refusals")),
        *(sa.Column(name, sa.Double(), nullable=False) for name in ("next_at", "created_at")),
        sa.Column("sent_at", sa.Double()),
        sa.Column("problem", sa.String()),
    )
