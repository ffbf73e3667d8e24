"""The framework's own tables. They are SQLAlchemy Core, with a MetaData of their own, apart from the user's tables.

A change here needs a migration in ``core/records/versions``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)

from core.database.migrations.history import History

metadata = MetaData()

OWN = History("routemq", Path(__file__).parent / "versions", "routemq_version")
"""The history of migrations of the tables below."""


def _letters() -> list[Column[Any]]:
    """Return the columns of a table that holds whole messages, each with the reason why it is there."""
    return [
        # SQLite numbers rows by itself for INTEGER only. PostgreSQL needs BIGINT in the long run.
        Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
        Column("topic", Text, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("qos", SmallInteger, nullable=False),
        Column("retain", Boolean, nullable=False),
        Column("properties", JSON, nullable=True),
        Column("route", Text, nullable=True, index=True),
        Column("error", Text, nullable=False),
        Column("reason", Text, nullable=False),
        Column("traceback", Text, nullable=True),
        Column("attempts", Integer, nullable=False),
        Column("first_at", DateTime(timezone=True), nullable=False),
        Column("last_at", DateTime(timezone=True), nullable=False),
        Column("client_id", Text, nullable=False),
        Column("message_id", Text, nullable=True, index=True, unique=True),
    ]


# A number that was deleted is not used again: whoever has read it would take another message for it.
dead_letters = Table("routemq_dead_letters", metadata, *_letters(), sqlite_autoincrement=True)
"""Messages that cannot be handled."""

backlog = Table("routemq_backlog", metadata, *_letters(), sqlite_autoincrement=True)
"""Messages that wait for a route that stands."""

sessions = Table(
    "routemq_sessions",
    metadata,
    Column("client_id", Text, primary_key=True),
    Column("broker", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("filters", JSON, nullable=False),
    Column("changed_at", DateTime(timezone=True), nullable=False),
    Column("identity", Text, nullable=True),
    Column("identity_at", Double, nullable=True),
)

processed = Table(
    "routemq_processed",
    metadata,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("client_id", Text, nullable=False),
    Column("broker", Text, nullable=False),
    Column("unit", Text, nullable=False, unique=True),
    Column("packets", LargeBinary, nullable=False),
    Column("committed_at", DateTime(timezone=True), nullable=False),
    Column("generation", BigInteger, nullable=True),
    Column("position", BigInteger, nullable=True),
    Index("ix_routemq_processed_client_id_broker", "client_id", "broker"),
)

outbox = Table(
    "routemq_outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True),
    Column("client_id", Text, nullable=False),
    Column("topic", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("qos", SmallInteger, nullable=False),
    Column("retain", Boolean, nullable=False),
    Column("properties", JSON, nullable=True),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Index("ix_routemq_outbox_client_id_id", "client_id", "id"),
)

dedup = Table(
    "routemq_dedup",
    metadata,
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("seen_at", DateTime(timezone=True), nullable=False, index=True),
)

periodic = Table(
    "routemq_periodic",
    metadata,
    Column("name", Text, primary_key=True),
    Column("slot", BigInteger, nullable=False),
    Column("busy_until", Double, nullable=False),
)
