"""The types of fractures: what the detector told of each box, and what readers say."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns, empty for the results and the feedback of before, which say nothing of types."""
    op.add_column("predictions", sa.Column("type_names", sa.JSON()))
    op.add_column("predictions", sa.Column("type_confidence", sa.Double()))
    op.add_column("predictions", sa.Column("type_accuracy", sa.Double()))
    op.add_column("detections", sa.Column("types", sa.JSON()))
    op.add_column("feedback", sa.Column("types", sa.JSON()))
    op.add_column("feedback", sa.Column("missed_types", sa.JSON()))
