"""Whether a picture looked like a radiograph of a limb when it was analysed."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns, empty for the results of before."""
    op.add_column("predictions", sa.Column("limb_probability", sa.Double()))
    op.add_column("predictions", sa.Column("suitability", sa.JSON()))
