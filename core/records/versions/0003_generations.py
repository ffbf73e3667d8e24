"""The record of packets belongs to one generation of a session, and what a broker does with identifiers is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0003_generations"
down_revision = "0002_dead_letters_once"

COLUMNS = {
    "routemq_processed": (("generation", sa.BigInteger), ("position", sa.BigInteger)),
    "routemq_sessions": (("identity", sa.Text), ("identity_at", sa.Double)),
}


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        known = {column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)}
        for name, kind in columns:
            # Tables that were made before there were migrations were made by the code, which may have known this column.
            if name not in known:
                op.add_column(table, sa.Column(name, kind))


def downgrade() -> None:
    for table, columns in COLUMNS.items():
        for name, _ in columns:
            op.drop_column(table, name)
