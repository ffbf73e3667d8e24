"""The parent of models."""

from __future__ import annotations

from typing import Any

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase

from core.database.row import to_dict


class Base(DeclarativeBase):
    """The parent of models."""

    # SQLite gets the names that PostgreSQL would give, since a migration can only drop what has a name.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        }
    )

    def to_dict(self) -> dict[str, Any]:
        """Return the loaded columns by name, as values that JSON can hold. ``core.database.row.to_dict`` lists the forms."""
        return to_dict(self)
