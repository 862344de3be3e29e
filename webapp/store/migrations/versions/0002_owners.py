"""Owners, findings and hashes of results; feedback, users, tokens, and the audit log that nothing can change."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the columns with what is true of results that were kept without them, then the tables."""
    for column in (
        sa.Column("owner", sa.String(), nullable=False, server_default="local"),
        sa.Column("finding", sa.String(), nullable=False, server_default="none seen"),
        sa.Column("confidence", sa.Double()),
        sa.Column("input_sha256", sa.String(), nullable=False, server_default=""),
        sa.Column("result_sha256", sa.String(), nullable=False, server_default=""),
        sa.Column("calibrated", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("idempotency_key", sa.String()),
    ):
        op.add_column("predictions", column)
    for name in ("owner", "finding"):
        op.create_index(f"ix_predictions_{name}", "predictions", [name])
    # An index and no constraint, for which SQLite would have to recreate the table and lose what refers to it.
    op.create_index("ux_predictions_idempotency", "predictions", ["owner", "idempotency_key"], unique=True)
    op.execute(
        "UPDATE predictions SET finding = CASE"
        " WHEN (SELECT max(score) FROM detections WHERE prediction_id = id) >= operating_score THEN 'likely'"
        " WHEN (SELECT max(score) FROM detections WHERE prediction_id = id) >= possible_score THEN 'possible'"
        " ELSE 'none seen' END"
    )
    op.create_table(
        "feedback",
        sa.Column("prediction_id", sa.String(), sa.ForeignKey("predictions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False, index=True),
        sa.Column("verdicts", sa.JSON(), nullable=False),
        sa.Column("missed", sa.JSON(), nullable=False),
        sa.Column("no_fracture", sa.Boolean(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
    )
    op.create_table(
        "users",
        sa.Column("name", sa.String(), primary_key=True),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("stamp", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("user", sa.String(), sa.ForeignKey("users.name", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("secret_hash", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("at", "actor", "action")),
        *(sa.Column(name, sa.String()) for name in ("subject", "input_sha256", "model_sha256", "result_sha256")),
        sa.Column("hash", sa.String(), nullable=False),
    )
    _refuse_changes(op.get_bind().dialect.name)


def _refuse_changes(dialect: str) -> None:
    if dialect == "postgresql":
        op.execute(
            "CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit"
            " FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_refuses_{change.lower()} BEFORE {change} ON audit"
            " BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"
        )
