"""A dead letter is known by its message, so that it is stored once although the answer to its commit was lost."""

import sqlalchemy as sa
from alembic import op

revision = "0002_dead_letters_once"
down_revision = "0001_first"


def upgrade() -> None:
    columns = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("routemq_dead_letters")}
    # Tables that were made before there were migrations were made by the code, which may have known this column.
    if "message_id" not in columns:
        op.add_column("routemq_dead_letters", sa.Column("message_id", sa.Text))
    op.create_index(
        "ix_routemq_dead_letters_message_id", "routemq_dead_letters", ["message_id"], unique=True, if_not_exists=True
    )


def downgrade() -> None:
    op.drop_index("ix_routemq_dead_letters_message_id", "routemq_dead_letters")
    op.drop_column("routemq_dead_letters", "message_id")
