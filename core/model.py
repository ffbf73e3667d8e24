"""The database for application code: ``await Model.create(SensorReading, value=21.5)``."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast, overload

from sqlalchemy import MetaData, func, select
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.orm.decl_api import DeclarativeAttributeIntercept

from core.database import current
from core.database import transaction as transactions
from core.database.engine import Database
from core.database.mapping import check_names, hashable, identity_of, instance_of, key_names, mapper_of, new_instance
from core.database.pool import Pool, PoolOptions
from core.database.row import to_dict
from core.database.statements.change import delete_of, update_of
from core.database.statements.find import find_of
from core.database.statements.gather import MAX_ROWS
from core.database.statements.insert import insert_of
from core.database.statements.insertion import alike, insert_only, is_plain, kind_of_insert
from core.database.statements.upsert import upsert_of
from core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Unpack

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from core.database.statements.gather import Kind

__all__ = ["Base", "Model", "Page"]

M = TypeVar("M")

log = logging.getLogger("routemq.database")


@dataclass(frozen=True, slots=True)
class Page(Generic[M]):
    """One page of rows; ``page`` counts from 1, ``total`` is the number of rows on all pages."""

    items: list[M]
    total: int
    page: int
    per_page: int

    @property
    def total_pages(self) -> int:
        """How many pages there are."""
        return -(-self.total // self.per_page)


class Base(DeclarativeBase):
    """The parent of models."""

    # PostgreSQL's own names, so that SQLite has them too: only what has a name can be dropped by a migration.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        }
    )

    def to_dict(self) -> dict[str, Any]:
        """Give the loaded columns, JSON-ready: see ``core.database.row.to_dict``."""
        return to_dict(self)


class ModelType(DeclarativeAttributeIntercept):
    """The calls of ``Model``. They stand here so that models, its children, may have columns of any name."""

    @property
    def _is_enabled(cls) -> bool:
        """Whether a database is configured."""
        return current.configured_or_none() is not None

    @property
    def _engine(cls) -> AsyncEngine | None:
        """The engine of the configured database."""
        return None if (found := current.configured_or_none()) is None else found.engine

    # -- the database --------------------------------------------------------------------------------------------------

    def configure(
        cls,
        url: str | None,
        *,
        echo: bool = False,
        **pool: Unpack[Pool],
    ) -> None:
        """Use the database at ``url`` from now on, without connecting yet. An empty one disables the database.

        - ``echo``: log each statement.
        - ``pool_size``, ``max_overflow``, ``pool_timeout``, ``pool_recycle``: see ``core.database.pool.PoolOptions``.

        Raise SettingsError for a URL that cannot be right.
        """
        current.configure(Database(url, PoolOptions(**pool), echo=echo) if url else None)

    async def close(cls) -> None:
        """Close all connections; the database is disabled from then on."""
        await current.close()

    async def ping(cls) -> None:
        """Ask the database for a sign of life. Raises what the driver raises."""
        await current.configured().ping()

    async def create_tables(cls) -> None:
        """Create the tables of all models that are missing; safe when several processes do it at once."""
        await current.configured().create_tables(Base.metadata)

    # -- sessions ------------------------------------------------------------------------------------------------------

    async def get_session(cls) -> AsyncSession:
        """Give a new session, which the caller commits and closes; None while the database is disabled."""
        if not _enabled("get_session"):
            # The specification has callers ask `if not session`; those that do not ask are not to be bothered by a type.
            return None  # type: ignore[return-value]
        return await transactions.get_session()

    @asynccontextmanager
    async def session(cls) -> AsyncIterator[AsyncSession]:
        """Give a session that is closed at the end of the block; what is not committed by then is rolled back."""
        async with await transactions.get_session() as session:
            yield session

    def transaction(cls) -> AbstractAsyncContextManager[AsyncSession]:
        """Give a session in a transaction that ``Model``'s calls in the block join, in this task and in those it starts.

        It commits at the end of the block and rolls back if that raises. One within another is a savepoint.
        """
        return transactions.transaction()

    # -- writing -------------------------------------------------------------------------------------------------------

    async def create(cls, model: type[M], /, **values: Any) -> M:
        """Insert a row and give it, committed and fully loaded.

        Raises ModelError for values that the model has not, and SQLAlchemy's errors (IntegrityError and others).
        """
        gathers = transactions.gathers()
        kind = kind_of_insert(model, values) if gathers is not None else None
        if gathers is not None and kind is not None:
            made: M = await gathers[0].call(kind, values)
            return made
        row = new_instance(model, values)
        async with transactions.writing() as session:
            session.add(row)
            await session.flush()
            await session.refresh(row)
        return row

    @overload
    async def create_many(
        cls, model: type[M], rows: Sequence[Mapping[str, Any] | M], /, *, returning: Literal[True] = True
    ) -> list[M]: ...

    @overload
    async def create_many(
        cls, model: type[M], rows: Sequence[Mapping[str, Any] | M], /, *, returning: Literal[False]
    ) -> None: ...

    async def create_many(
        cls, model: type[M], rows: Sequence[Mapping[str, Any] | M], /, *, returning: bool = True
    ) -> list[M] | None:
        """Insert rows, given as dictionaries or as instances, in one transaction; give them in the same order.

        With ``returning=False`` it gives None, and PostgreSQL takes dictionaries by COPY, at a fifth of the cost.
        """
        mapper_of(model)
        kept = alike(model, rows)
        async with transactions.writing() as session:
            if kept is not None and not returning:
                await insert_only(session, model, kept, alone=not transactions.is_surrounded())
                return None
            if kept is not None and current.configured().gathers:
                kind = insert_of(cast("Any", model), tuple(kept[0]))
                made: list[M] = []
                for start in range(0, len(kept), MAX_ROWS):
                    made += await kind.run(session, kept[start : start + MAX_ROWS])
                return made
            made = [new_instance(model, row) if isinstance(row, Mapping) else instance_of(model, row) for row in rows]
            session.add_all(made)
            await session.flush()
            for row in made if returning else ():
                await session.refresh(row)
        return made if returning else None

    async def update(cls, model: type[M], key: Any, /, **values: Any) -> M | None:
        """Change the row with primary key ``key`` and give it, committed and fully loaded; None if there is none."""
        check_names(model, values)
        identity = identity_of(model, key)
        changed: M | None = await _write(update_of(cast("Any", model)), (identity, values), gather=hashable(identity))
        return changed

    async def upsert(cls, model: type[M], /, *, on: Sequence[str] | None = None, **values: Any) -> M:
        """Insert a row, or change the one that has the same values in ``on``; give it, committed and fully loaded.

        ``on`` names columns with a unique constraint, by default the primary key. PostgreSQL and SQLite.
        """
        mapper = mapper_of(model)
        keys = key_names(mapper) if on is None else tuple(on)
        names = tuple(values)
        try:
            kind = upsert_of(cast("Any", model), names, keys, current.configured().url.get_backend_name())
        except ModelError:
            # Of a name that is none, this says which one was meant.
            check_names(model, values)
            raise
        made: M = await _write(kind, values, gather=is_plain(model) and hashable(kind.apart(values)))
        return made

    async def delete(cls, model: type[M], key: Any, /) -> bool:
        """Delete the row with primary key ``key``, with the cascades of its relationships; say whether there was one."""
        identity = identity_of(model, key)
        return bool(await _write(delete_of(cast("Any", model)), identity, gather=hashable(identity)))

    # -- reading -------------------------------------------------------------------------------------------------------

    async def find(cls, model: type[M], key: Any, /) -> M | None:
        """Give the row with primary key ``key`` (a tuple where that has several columns), or None."""
        identity = identity_of(model, key)
        if not _enabled("find"):
            return None
        gathers = transactions.gathers() if hashable(identity) else None
        if gathers is not None:
            found: M | None = await gathers[1].call(find_of(cast("Any", model)), identity)
            return found
        async with transactions.reading() as session:
            return await session.get(model, identity)

    async def all(cls, model: type[M], /) -> list[M]:
        """Give all rows."""
        return await cls.where(model)

    async def first(
        cls, model: type[M], /, *conditions: ColumnElement[bool], order_by: Any = None, **equals: Any
    ) -> M | None:
        """Give the first row that meets all conditions, in the order ``order_by``, or None."""
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
        """Give the rows that meet all conditions: ``Device.last_seen < 5``, ``status="online"``.

        ``order_by`` is a column, or several in a list or tuple.
        """
        statement = _select(model, conditions, equals, order_by).limit(limit).offset(offset)
        if not _enabled("where"):
            return []
        async with transactions.reading() as session:
            rows = await session.scalars(statement)
            return list(cast("Any", rows.unique()))

    async def count(cls, model: type[M], /, *conditions: ColumnElement[bool], **equals: Any) -> int:
        """Give the number of rows that meet all conditions."""
        statement = select(func.count()).select_from(_select(model, conditions, equals).subquery())
        if not _enabled("count"):
            return 0
        async with transactions.reading() as session:
            return await session.scalar(statement) or 0

    async def exists(cls, model: type[M], /, *conditions: ColumnElement[bool], **equals: Any) -> bool:
        """Say whether there is a row that meets all conditions."""
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
        """Give one page of the rows that meet all conditions; by default in the order of the primary key."""
        if page < 1 or per_page < 1:
            raise ModelError(f"page={page}, per_page={per_page}: both count from 1")
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
    """The database's operations, and a parent of models like ``Base``.

    The calls are made on ``Model`` itself and take the model as their first argument: ``await Model.find(Device, 1)``.
    """

    __abstract__ = True


def _enabled(call: str) -> bool:
    """Say whether there is a database; that there is none is told once for each kind of call."""
    if current.configured_or_none() is not None:
        return True
    if current.tell_once(call):
        log.warning("the database is disabled (no DATABASE_URL): Model.%s finds nothing", call)
    return False


async def _write(kind: Kind, value: Any, *, gather: bool) -> Any:
    """Give the result of one call that writes, gathered with others of its kind where that may be."""
    gathers = transactions.gathers() if gather else None
    if gathers is not None:
        return await gathers[0].call(kind, value)
    async with transactions.writing() as session:
        (result,) = await kind.run(session, [value])
    return result


def _select(
    model: type[M], conditions: Sequence[ColumnElement[bool]], equals: Mapping[str, Any], order_by: Any = None
) -> Select[Any]:
    check_names(model, equals)
    # Not filter_by(): a model may have an attribute of any name, and this takes them one by one.
    statement = select(model).where(*conditions, *(getattr(model, name) == value for name, value in equals.items()))
    if order_by is None:
        return statement
    return statement.order_by(*order_by) if isinstance(order_by, list | tuple) else statement.order_by(order_by)
