"""Messages of routes that stand wait in a table of their own. Numbers of dead letters are not used again, on SQLite either."""

import sqlalchemy as sa
from alembic import op

revision = "0004_backlog"
down_revision = "0003_generations"


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        kept = {"sqlite_autoincrement": True}
        with op.batch_alter_table("routemq_dead_letters", recreate="always", table_kwargs=kept):
            pass
    if sa.inspect(op.get_bind()).has_table("routemq_backlog"):
        return
    op.create_table(
        "routemq_backlog",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("qos", sa.SmallInteger, nullable=False),
        sa.Column("retain", sa.Boolean, nullable=False),
        sa.Column("properties", sa.JSON),
        sa.Column("route", sa.Text, index=True),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("traceback", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("first_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("client_id", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, index=True, unique=True),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("routemq_backlog")
