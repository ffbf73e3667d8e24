"""PostgreSQL's COPY, which writes many rows and returns none."""

from __future__ import annotations

from contextlib import nullcontext
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from core.database.statements.defaults import maker_of_default
from core.database.statements.stored import check_stored
from core.errors import DatabaseUnreachableError, RowLeftOutError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sqlalchemy import Column
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Mapper


async def copy_rows(session: AsyncSession, model: type[Any], rows: Sequence[Mapping[str, Any]], *, alone: bool) -> bool:
    """Write ``rows`` of ``model`` by COPY in the transaction of ``session``. Return whether they were written.

    - ``rows``: values by name, for the same columns in each row.
    - ``alone``: whether the transaction holds nothing else. Then COPY has one of its own.

    Nothing is written if only SQLAlchemy can compute a default. Raise RowLeftOutError if a trigger leaves a row out,
    IntegrityError for a violated constraint, DatabaseUnreachableError for a lost connection, and the driver's error for all
    else.
    """
    connection = await session.connection()
    mapper: Mapper[Any] = inspect(model)
    given = rows[0]
    columns: list[Column[Any]] = []
    names: list[str] = []
    makers: list[Callable[[Mapping[str, Any]], Any]] = []
    # Whether the value of each column is written as it is given.
    plain = True
    for attribute in mapper.column_attrs:
        column: Any = attribute.columns[0]
        if attribute.key not in given and column.default is None:
            continue
        make = _maker(attribute.key, column, attribute.key in given)
        if make is None:
            return False
        processor = column.type.dialect_impl(connection.dialect).bind_processor(connection.dialect)
        plain = plain and processor is None and attribute.key in given
        columns.append(column)
        names.append(attribute.key)
        makers.append(make if processor is None else _processed(make, processor))
    if not alone:
        # SQLAlchemy begins the driver's transaction with its first statement, and COPY does not go through SQLAlchemy.
        await connection.execute(text("SELECT 1"))
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    table: Any = mapper.local_table
    if plain and len(columns) > 1:
        records: Iterable[tuple[Any, ...]] = map(itemgetter(*names), rows)
    else:
        records = [tuple([make(row) for make in makers]) for row in rows]
    try:
        async with driver.transaction() if alone else nullcontext():
            try:
                status = await driver.copy_records_to_table(
                    table.name, records=records, columns=[column.name for column in columns], schema_name=table.schema
                )
            except OSError:
                # It hangs, and so would ROLLBACK.
                driver.terminate()
                raise
            check_stored(model, len(rows), int(status.rpartition(" ")[2]))
    except RowLeftOutError:
        raise
    except Exception as error:
        # SQLAlchemy would turn the driver's errors into these, but COPY does not go through it.
        if isinstance(error, OSError):
            driver.terminate()
        if driver.is_closed():
            await connection.invalidate(error)
            raise DatabaseUnreachableError(f"the connection was lost during COPY: {one_line(error)}") from error
        if str(getattr(error, "sqlstate", "")).startswith("23"):
            raise IntegrityError(f"COPY {table.name}", None, error) from error
        raise
    return True


def _maker(name: str, column: Any, given: bool) -> Callable[[Mapping[str, Any]], Any] | None:  # noqa: FBT001
    """Return a function that makes the value of ``column`` for a row. Return None if only SQLAlchemy can make it."""
    if given:
        return lambda row: row[name]
    make = maker_of_default(column)
    return None if make is None else lambda _: make()


def _processed(
    make: Callable[[Mapping[str, Any]], Any], processor: Callable[[Any], Any]
) -> Callable[[Mapping[str, Any]], Any]:
    return lambda row: processor(make(row))
