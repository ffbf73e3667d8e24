"""The differences between the tables of a database and those of the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Float, Table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, MutableMapping

    from alembic.autogenerate.api import AutogenContext
    from sqlalchemy import MetaData
    from sqlalchemy.engine import Connection

PREFIX = "routemq_"
"""The beginning of the names of the framework's tables, which have a history of their own."""

_PARTS = {"table", "column", "index", "constraint", "fk"}


def options(metadata: MetaData, tables: Collection[str] | None = None) -> dict[str, Any]:
    """Return Alembic's options for a comparison with ``metadata``. ``tables`` limits it to tables with these names."""
    schemas = {table.schema for table in metadata.tables.values()}

    def include(name: str | None, kind: str, parents: MutableMapping[Any, str | None]) -> bool:
        if kind == "schema":
            return name in schemas or name is None
        if kind == "table" and name is not None:
            return not name.startswith(PREFIX) and (tables is None or name in tables)
        return True

    return {
        "target_metadata": metadata,
        "include_schemas": schemas - {None} != set(),
        "include_name": include,
        "compare_type": _types_differ,
        "compare_server_default": True,
        # SQLite alters a table by copying it. With batches, a migration that was written on one database runs on both.
        "render_as_batch": True,
        "render_item": _render,
    }


def differences(
    connection: Connection,
    metadata: MetaData,
    table: str,
    ours: str = "the models",
    theirs: str = "the migrations",
    tables: Collection[str] | None = None,
) -> list[str]:
    """Return a line for each difference between ``metadata`` and the database at ``connection``.

    - ``table``: the table that holds the database's revision, which is not compared.
    - ``ours``: what the lines call ``metadata``.
    - ``theirs``: what the lines call the database.
    - ``tables``: the names of the only tables that are compared. None: all are compared.
    """
    context = MigrationContext.configure(connection, opts={"version_table": table} | options(metadata, tables))
    return [_line(ours, theirs, *each) for each in _flat(compare_metadata(context, metadata))]


def _types_differ(
    context: MigrationContext, there: object, ours: object, their_type: object, our_type: object
) -> bool | None:
    """Return False for two types of floats on SQLite, which has only one. Return None for others, which Alembic compares."""
    floats = isinstance(their_type, Float) and isinstance(our_type, Float)
    return False if floats and context.dialect.name == "sqlite" else None


def _flat(found: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the differences that Alembic found, some of which it puts in lists."""
    for each in found:
        if isinstance(each, list):
            yield from _flat(each)
        else:
            yield each


def _line(ours: str, theirs: str, kind: str, *rest: Any) -> str:
    """Return the line for one difference, which Alembic has as a tuple of ``kind``, such as "add_column", and ``rest``."""
    verb, _, what = kind.partition("_")
    if verb == "modify":
        _, table, column, _, old, new = rest
        if what == "default":
            old, new = (getattr(getattr(each, "arg", each), "text", getattr(each, "arg", each)) for each in (old, new))
        return f"{table}.{column}: {what} is {new!s} in {ours}, {old!s} in {theirs}"
    if what == "column":
        _, table, column = rest
        name = f"column {table}.{column.name}"
    elif what in _PARTS:
        (thing,) = rest
        name = f"table {thing.name}" if isinstance(thing, Table) else f"{_noun(what)} {_name(thing)} of {thing.table.name}"
    else:
        name = f"{what.replace('_', ' ')} of {getattr(rest[0], 'name', rest[0])}"
    return f"{name}: in {ours}, not in {theirs}" if verb == "add" else f"{name}: in {theirs}, not in {ours}"


def _noun(what: str) -> str:
    return "foreign key" if what == "fk" else what


def _name(thing: Any) -> str:
    return str(thing.name or f"on {', '.join(column.name for column in thing.columns)}")


def _render(kind: str, thing: Any, context: AutogenContext) -> str | Literal[False]:
    """Render a type for which Alembic would write no import. Return False for all else, which Alembic renders."""
    if kind != "type":
        return False
    module = type(thing).__module__
    if module == "sqlalchemy.dialects.postgresql.json":
        context.imports.add("from sqlalchemy.dialects import postgresql")
        return f"postgresql.{thing!r}".replace("=Text()", "=sa.Text()")
    if module.split(".")[0] not in {"sqlalchemy", "alembic"}:
        context.imports.add(f"import {module}")
    return False
