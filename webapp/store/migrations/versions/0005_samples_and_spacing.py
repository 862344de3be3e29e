"""The depth of a radiograph with the window of its 8 bits, and the size of its pixels."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add the columns, empty for the results of before: of those only 8 bits were kept, and no file said its size."""
    op.add_column("predictions", sa.Column("bits", sa.Integer()))
    op.add_column("predictions", sa.Column("window", sa.JSON()))
    op.add_column("predictions", sa.Column("spacing_mm", sa.JSON()))
