"""The framework's tables. Those that an earlier version made without migrations are taken over."""

import sqlalchemy as sa
from alembic import op

revision = "0001_first"
down_revision = None

# SQLite numbers rows by itself for INTEGER only. PostgreSQL needs BIGINT in the long run.
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "routemq_dead_letters",
        sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("qos", sa.SmallInteger, nullable=False),
        sa.Column("retain", sa.Boolean, nullable=False),
        sa.Column("properties", sa.JSON),
        sa.Column("route", sa.Text),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("traceback", sa.Text),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("first_at", TIME, nullable=False),
        sa.Column("last_at", TIME, nullable=False),
        sa.Column("client_id", sa.Text, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_routemq_dead_letters_route", "routemq_dead_letters", ["route"], if_not_exists=True)
    op.create_table(
        "routemq_sessions",
        sa.Column("client_id", sa.Text, primary_key=True),
        sa.Column("broker", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("filters", sa.JSON, nullable=False),
        sa.Column("changed_at", TIME, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "routemq_processed",
        sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("client_id", sa.Text, nullable=False),
        sa.Column("broker", sa.Text, nullable=False),
        sa.Column("unit", sa.Text, nullable=False, unique=True),
        sa.Column("packets", sa.LargeBinary, nullable=False),
        sa.Column("committed_at", TIME, nullable=False),
        if_not_exists=True,
    )
    op.create_index(
        "ix_routemq_processed_client_id_broker", "routemq_processed", ["client_id", "broker"], if_not_exists=True
    )
    op.create_table(
        "routemq_outbox",
        sa.Column("id", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("client_id", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("qos", sa.SmallInteger, nullable=False),
        sa.Column("retain", sa.Boolean, nullable=False),
        sa.Column("properties", sa.JSON),
        sa.Column("created_at", TIME, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_routemq_outbox_client_id_id", "routemq_outbox", ["client_id", "id"], if_not_exists=True)
    # Databases from before there were migrations have this index in its place.
    op.drop_index("ix_routemq_outbox_client_id", "routemq_outbox", if_exists=True)
    op.create_table(
        "routemq_dedup",
        sa.Column("route", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("seen_at", TIME, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_routemq_dedup_seen_at", "routemq_dedup", ["seen_at"], if_not_exists=True)
    op.create_table(
        "routemq_periodic",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("slot", sa.BigInteger, nullable=False),
        sa.Column("busy_until", sa.Double, nullable=False),
        if_not_exists=True,
    )


def downgrade() -> None:
    for name in ("periodic", "dedup", "outbox", "processed", "sessions", "dead_letters"):
        op.drop_table(f"routemq_{name}")
