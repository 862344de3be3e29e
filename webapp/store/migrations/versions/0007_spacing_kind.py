"""Where the size of a pixel was measured: in the patient, at the detector, on a scanned film, or not stated."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column, empty for the results of before, of which nobody wrote it down."""
    op.add_column("predictions", sa.Column("spacing_kind", sa.String()))
