"""The database for application code.

The calls are made on ``Model`` and take the model as their first argument::

    reading = await Model.create(SensorReading, sensor_id="temp_001", value=21.5)

Each call that takes a model raises ModelError if its argument is not a model. Each call that reads or writes may raise
SQLAlchemy's errors too, and DatabaseUnreachableError if the database cannot be reached.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from sqlalchemy import func, select
from sqlalchemy.orm.decl_api import DeclarativeAttributeIntercept

from core.database import current
from core.database import transaction as transactions
from core.database.base import Base
from core.database.engine import Database
from core.database.mapping import check_key, check_names, checked_instance, hashable, key_names, mapper_of, new_instance
from core.database.page import Page
from core.database.pool import Pool, PoolOptions
from core.database.statements.change import delete_of, update_of
from core.database.statements.find import find_of
from core.database.statements.gather import MAX_ROWS
from core.database.statements.insert import insert_of
from core.database.statements.insertion import insert_without_returning, is_plain, rows_for_one_insert, shared_insert
from core.database.statements.stored import insert_instances
from core.database.statements.upsert import upsert_of
from core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Unpack

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from core.database.statements.gather import Statement

__all__ = ["Base", "Model", "Page"]

M = TypeVar("M")

log = logging.getLogger("routemq.database")


class ModelType(DeclarativeAttributeIntercept):
    """The calls of ``Model``. They are methods of its metaclass, so that models may have columns of any name."""

    @property
    def _is_enabled(cls) -> bool:
        """Whether a database is configured."""
        return current.configured_or_none() is not None

    @property
    def _engine(cls) -> AsyncEngine | None:
        """The engine of the configured database, or None while the database is disabled."""
        return None if (found := current.configured_or_none()) is None else found.engine

    # -- the database --------------------------------------------------------------------------------------------------

    def configure(
        cls,
        url: str | None,
        *,
        echo: bool = False,
        **pool: Unpack[Pool],
    ) -> None:
        """Use the database at ``url`` from now on. It is connected to by the first statement.

        - ``url``: the URL, such as "postgresql+asyncpg://user:password@host/database". None or "" disables the database.
        - ``echo``: whether each statement is logged.
        - ``pool_size``: the number of connections that are kept, 10 by default.
        - ``max_overflow``: the number of connections that are made beyond those while all are in use, 20 by default.
        - ``pool_timeout``: the seconds that a call waits for a connection before it gets an error, 30 by default.
        - ``pool_recycle``: the age in seconds at which a connection is replaced, 3600 by default.
        - ``pooler``: "transaction" if PgBouncer, or another pooler that gives each transaction any of its connections,
          stands before PostgreSQL.
        - ``statement_timeout``: the seconds after which a statement on PostgreSQL is given up, 20 by default. None: never.

        Raise SettingsError for a URL that cannot be used.
        """
        current.configure(Database(url, PoolOptions(**pool), echo=echo) if url else None)

    async def close(cls) -> None:
        """Close all connections, and disable the database."""
        await current.close()

    async def ping(cls) -> None:
        """Check that the database answers.

        Raise DatabaseDisabledError while the database is disabled, and the driver's error if the database does not answer.
        """
        await current.configured().ping()

    async def create_tables(cls) -> None:
        """Create the tables of models that are missing. Several processes may do so at the same time.

        Only models with ``Base`` or ``Model`` as a parent count. Raise DatabaseDisabledError while the database is disabled.
        """
        await current.configured().create_tables(Base.metadata)

    # -- sessions ------------------------------------------------------------------------------------------------------

    async def get_session(cls) -> AsyncSession:
        """Return a new session, which the caller commits and closes. Return None while the database is disabled.

        In a handler, and within ``transaction``, the session is on the connection of that transaction. Its ``commit()``
        releases a savepoint, and the transaction commits in the end. Until it is closed, it surrounds what the caller calls:
        a second session is a savepoint of the first.
        """
        if not _enabled("get_session"):
            # The specification has callers that ask `if not session`. The type spares the others from asking.
            return None  # type: ignore[return-value]
        return await transactions.get_session()

    @asynccontextmanager
    async def session(cls) -> AsyncIterator[AsyncSession]:
        """Open a session for the block. What is not committed at the end of the block is rolled back.

        Within a transaction, it is what ``get_session`` says. Yield the AsyncSession. Raise DatabaseDisabledError while the
        database is disabled.
        """
        async with await transactions.get_session() as session:
            yield session

    def transaction(cls) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a transaction for the block. The calls of ``Model`` join it, in this task and in those that it starts.

        It commits at the end of the block, and rolls back if the block raises. A transaction within a transaction is a
        savepoint, and so is one in a handler. Yield its AsyncSession. Raise DatabaseDisabledError while the database is
        disabled.
        """
        return transactions.transaction()

    # -- writing -------------------------------------------------------------------------------------------------------

    async def create(cls, model: type[M], /, **values: Any) -> M:
        """Insert a row of ``model`` with ``values``, given by the names of its columns.

        Return the instance. It is committed, unless the call is part of a transaction, and all its columns are loaded.
        Raise ModelError for a value that the model has no column for, IntegrityError for a violated constraint,
        RowLeftOutError if a trigger leaves the row out, and DatabaseDisabledError while the database is disabled.
        """
        writes = transactions.writes()
        insert = shared_insert(model, values) if writes is not None else None
        if writes is not None and insert is not None:
            made: M = await writes.call(insert, values)
            return made
        row = new_instance(model, values)
        async with transactions.writing() as session:
            await insert_instances(session, model, [row], returning=True)
        return row

    @overload
    async def create_many(
        cls, model: type[M], rows: Sequence[Mapping[str, Any] | M], /, *, returning: Literal[True] = True
    ) -> list[M]: ...

    @overload
    async def create_many(
        cls, model: type[M], rows: Sequence[Mapping[str, Any] | M], /, *, returning: Literal[False]
    ) -> None: ...

    @overload
    async def create_many(
        cls, model: type[M], rows: Sequence[Mapping[str, Any] | M], /, *, returning: bool
    ) -> list[M] | None: ...

    async def create_many(
        cls, model: type[M], rows: Sequence[Mapping[str, Any] | M], /, *, returning: bool = True
    ) -> list[M] | None:
        """Insert ``rows`` of ``model`` in one transaction. A row is a dictionary of values by name, or an instance.

        Return the instances in the same order, as ``create`` does. With ``returning=False``, return None. PostgreSQL then
        takes dictionaries by COPY, at a fifth of the cost. Raise ModelError for a row that the model does not take,
        IntegrityError for a violated constraint, RowLeftOutError if a trigger leaves a row out, and DatabaseDisabledError
        while the database is disabled. If it raises, no row is inserted.
        """
        mapper_of(model)
        kept = rows_for_one_insert(model, rows)
        async with transactions.writing() as session:
            if kept is not None and not returning:
                await insert_without_returning(session, model, kept, alone=not transactions.is_surrounded())
                return None
            if kept is not None and current.configured().gathers:
                insert = insert_of(cast("Any", model), tuple(kept[0]))
                made: list[M] = []
                for start in range(0, len(kept), MAX_ROWS):
                    made += await insert.run(session, kept[start : start + MAX_ROWS])
                return made
            made = [new_instance(model, row) if isinstance(row, Mapping) else checked_instance(model, row) for row in rows]
            await insert_instances(session, model, made, returning=returning)
        return made if returning else None

    async def update(cls, model: type[M], key: Any, /, **values: Any) -> M | None:
        """Change the row of ``model`` with the primary key ``key``: a value, or a tuple for a key of several columns.

        ``values`` are the new values by name. Return the instance, as ``create`` does, or None if there is no such row.
        Raise ModelError for a key of another shape and for a value that the model has no column for, IntegrityError for a
        violated constraint, and DatabaseDisabledError while the database is disabled.
        """
        check_names(model, values)
        check_key(model, key)
        changed: M | None = await _write(update_of(cast("Any", model)), (key, values), gather=hashable(key))
        return changed

    async def upsert(cls, model: type[M], /, *, on: Sequence[str] | None = None, **values: Any) -> M:
        """Insert a row of ``model`` with ``values``, or change the row that has the same values in the columns ``on``.

        ``on`` names columns with a unique constraint. By default it is the primary key. ``values`` must have a value for
        each column of ``on``. Return the instance, as ``create`` does.

        Raise ModelError for a value that the model has no column for, for a column of ``on`` without a value, for a model of
        several tables, and for a database other than PostgreSQL and SQLite. Raise IntegrityError for another constraint that
        is violated, RowLeftOutError if a trigger leaves the row out, and DatabaseDisabledError while there is no database.
        """
        mapper = mapper_of(model)
        keys = key_names(mapper) if on is None else tuple(on)
        names = tuple(values)
        try:
            upsert = upsert_of(cast("Any", model), names, keys, current.configured().url.get_backend_name())
        except ModelError:
            # If a name is no column, this error says which column was meant.
            check_names(model, values)
            raise
        made: M = await _write(upsert, values, gather=is_plain(model) and hashable(upsert.key(values)))
        return made

    async def delete(cls, model: type[M], key: Any, /) -> bool:
        """Delete the row of ``model`` with the primary key ``key``, with the cascades of its relationships.

        Return whether there was such a row. Raise ModelError for a key of another shape, IntegrityError for a violated
        constraint, and DatabaseDisabledError while the database is disabled.
        """
        check_key(model, key)
        return bool(await _write(delete_of(cast("Any", model)), key, gather=hashable(key)))

    # -- reading -------------------------------------------------------------------------------------------------------

    async def find(cls, model: type[M], key: Any, /) -> M | None:
        """Return the row of ``model`` with the primary key ``key``: a value, or a tuple for a key of several columns.

        Return None if there is no such row, or while the database is disabled. Raise ModelError for a key of another shape.
        """
        check_key(model, key)
        if not _enabled("find"):
            return None
        reads = transactions.reads() if hashable(key) else None
        if reads is not None:
            found: M | None = await reads.call(find_of(cast("Any", model)), key)
            return found
        async with transactions.reading() as session:
            return await session.get(model, key)

    async def all(cls, model: type[M], /) -> list[M]:
        """Return all rows of ``model``. Return an empty list while the database is disabled."""
        return await cls.where(model)

    async def first(
        cls, model: type[M], /, *conditions: ColumnElement[bool], order_by: Any = None, **equals: Any
    ) -> M | None:
        """Return the first of the rows that ``where`` returns for the same arguments, or None if there is no such row."""
        rows = await cls.where(model, *conditions, order_by=order_by, limit=1, **equals)
        return rows[0] if rows else None

    async def where(
        cls,
        model: type[M],
        /,
        *conditions: ColumnElement[bool],
        order_by: Any = None,
        limit: int | None = None,
        offset: int | None = None,
        **equals: Any,
    ) -> list[M]:
        """Return the rows of ``model`` that meet all conditions.

        - ``conditions``: SQLAlchemy's expressions, such as ``Device.last_seen < 5``.
        - ``order_by``: a column, or several in a list or tuple. None: the rows come in any order.
        - ``limit``: the number of rows to return at most. None: all.
        - ``offset``: the number of rows to leave out at the beginning. None: no row.
        - ``equals``: columns by name with the values that they must have, such as ``status="online"``.

        Return an empty list while the database is disabled. Raise ModelError for a name that is no column of the model.
        """
        statement = _select(model, conditions, equals, order_by).limit(limit).offset(offset)
        if not _enabled("where"):
            return []
        async with transactions.reading() as session:
            rows = await session.scalars(statement)
            return list(cast("Any", rows.unique()))

    async def count(cls, model: type[M], /, *conditions: ColumnElement[bool], **equals: Any) -> int:
        """Return the number of rows of ``model`` that meet all conditions, which are those of ``where``.

        Return 0 while the database is disabled. Raise ModelError for a name that is no column of the model.
        """
        statement = select(func.count()).select_from(_select(model, conditions, equals).subquery())
        if not _enabled("count"):
            return 0
        async with transactions.reading() as session:
            return await session.scalar(statement) or 0

    async def exists(cls, model: type[M], /, *conditions: ColumnElement[bool], **equals: Any) -> bool:
        """Return whether a row of ``model`` meets all conditions, which are those of ``where``.

        Return False while the database is disabled. Raise ModelError for a name that is no column of the model.
        """
        statement = select(_select(model, conditions, equals).exists())
        if not _enabled("exists"):
            return False
        async with transactions.reading() as session:
            return bool(await session.scalar(statement))

    async def paginate(
        cls,
        model: type[M],
        /,
        *conditions: ColumnElement[bool],
        page: int = 1,
        per_page: int = 100,
        order_by: Any = None,
        **equals: Any,
    ) -> Page[M]:
        """Return one page of the rows of ``model`` that meet all conditions.

        - ``conditions``, ``equals``: the conditions, as for ``where``.
        - ``page``: the number of the page. The first page is 1.
        - ``per_page``: the number of rows of a page, at least 1.
        - ``order_by``: a column, or several in a list or tuple. None: the primary key.

        Return an empty page while the database is disabled. Raise ModelError for a name that is no column of the model, and
        for ``page`` or ``per_page`` below 1.
        """
        if page < 1 or per_page < 1:
            raise ModelError(f"page={page} and per_page={per_page} must both be 1 or more")
        order_by = mapper_of(model).primary_key if order_by is None else order_by
        statement = _select(model, conditions, equals, order_by).limit(per_page).offset((page - 1) * per_page)
        total = select(func.count()).select_from(_select(model, conditions, equals).subquery())
        if not _enabled("paginate"):
            return Page([], 0, page, per_page)
        async with transactions.reading() as session:
            count = await session.scalar(total) or 0
            rows = await session.scalars(statement)
            return Page(list(cast("Any", rows.unique())), count, page, per_page)


class Model(Base, metaclass=ModelType):
    """The operations of the database, and a parent of models like ``Base``.

    The calls are made on ``Model`` itself and take the model as their first argument: ``await Model.find(Device, 1)``.
    ``ModelType`` has the calls.
    """

    __abstract__ = True


def _enabled(call: str) -> bool:
    """Return whether a database is configured. If not, log a warning for the first call of each name."""
    if current.configured_or_none() is not None:
        return True
    if current.is_first_without_database(call):
        log.warning(
            "the database is disabled, so that Model.%s finds nothing. Set DATABASE_URL, or call Model.configure(url)", call
        )
    return False


async def _write(statement: Statement, value: Any, *, gather: bool) -> Any:
    """Return the result of a call that writes ``value``. ``gather`` says whether it may be gathered with other calls."""
    writes = transactions.writes() if gather else None
    if writes is not None:
        return await writes.call(statement, value)
    async with transactions.writing() as session:
        (result,) = await statement.run(session, [value])
    return result


def _select(
    model: type[M], conditions: Sequence[ColumnElement[bool]], equals: Mapping[str, Any], order_by: Any = None
) -> Select[Any]:
    check_names(model, equals)
    # A column may have any name. filter_by() would not take the name "self".
    statement = select(model).where(*conditions, *(getattr(model, name) == value for name, value in equals.items()))
    if order_by is None:
        return statement
    return statement.order_by(*order_by) if isinstance(order_by, list | tuple) else statement.order_by(order_by)
