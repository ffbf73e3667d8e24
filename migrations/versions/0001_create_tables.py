"""The tables of the example."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001_create_tables"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "devices",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=True),
        sa.Column("device_type", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("last_seen", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("device_id", name=op.f("devices_device_id_key")),
    )
    op.create_table(
        "rtl433_readings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("device_id", sa.String(length=128), nullable=False),
        sa.Column("channel", sa.String(length=64), nullable=True),
        sa.Column("battery_ok", sa.Double(), nullable=True),
        sa.Column("temperature_C", sa.Double(), nullable=True),
        sa.Column("humidity", sa.Double(), nullable=True),
        sa.Column("message", sa.JSON().with_variant(postgresql.JSONB(astext_type=sa.Text()), "postgresql"), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("rtl433_readings") as batch_op:
        batch_op.create_index(batch_op.f("ix_rtl433_readings_model"), ["model"], unique=False)

    op.create_table(
        "sensor_readings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("device_id", sa.String(length=128), nullable=False),
        sa.Column("sensor_type", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("unit", sa.String(length=32), nullable=True),
        sa.Column("timestamp", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("sensor_readings") as batch_op:
        batch_op.create_index("ix_sensor_readings_device_id_timestamp", ["device_id", "timestamp"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("sensor_readings") as batch_op:
        batch_op.drop_index("ix_sensor_readings_device_id_timestamp")

    op.drop_table("sensor_readings")
    with op.batch_alter_table("rtl433_readings") as batch_op:
        batch_op.drop_index(batch_op.f("ix_rtl433_readings_model"))

    op.drop_table("rtl433_readings")
    op.drop_table("devices")
