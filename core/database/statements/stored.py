"""Whether the database stored all rows that it was sent. A trigger can leave rows out, and the database says nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import func, inspect, select
from sqlalchemy.exc import InvalidRequestError

from core.database.statements.find import find_of
from core.database.statements.gather import MAX_ROWS
from core.errors import RowLeftOutError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession


def left_out(model: type[Any], sent: int) -> RowLeftOutError:
    """Return the error that says that not all rows of ``model`` were stored, of as many as were ``sent``."""
    return RowLeftOutError(
        f"{model.__qualname__}: not all rows were stored, of {sent} that were sent. Check whether a trigger leaves rows out "
        "(RETURN NULL on PostgreSQL, RAISE(IGNORE) on SQLite), and have it raise an error for a row that is not wanted"
    )


def check_stored(model: type[Any], sent: int, stored: int) -> None:
    """Raise RowLeftOutError if the rows of ``model`` that were ``stored`` are not as many as were ``sent``."""
    if stored != sent:
        raise left_out(model, sent)


async def insert_instances(session: AsyncSession, model: type[Any], rows: Sequence[Any], *, returning: bool) -> None:
    """Insert the instances ``rows`` of ``model``. Load their columns if they are ``returning``.

    Raise RowLeftOutError if one of them was not stored.
    """
    session.add_all(rows)
    await session.flush()
    if returning:
        for row in rows:
            try:
                await session.refresh(row)
            except InvalidRequestError as error:
                raise left_out(model, len(rows)) from error
        return
    for start in range(0, len(rows), MAX_ROWS):
        keys: list[Any] = [inspect(row).identity for row in rows[start : start + MAX_ROWS]]
        there = select(func.count()).select_from(find_of(cast("Any", model)).selection(keys).subquery())
        check_stored(model, len(keys), await session.scalar(there) or 0)
