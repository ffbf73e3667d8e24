"""Writing migrations, finding models that have none, and taking over what an earlier start has made."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Double,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    TypeDecorator,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.database.engine import Database
from core.database.migrations import migrate
from core.database.migrations.compare import differences
from core.database.migrations.history import History
from core.database.migrations.revision import make_revision
from core.errors import MigrationError
from core.model import Base
from tests.migrations.conftest import write
from tests.migrations.test_migrate import rows, table_named
from tests.support.postgres import postgres


class Celsius(TypeDecorator[int]):
    """A type of the application's own."""

    impl = Integer
    cache_ok = True


def models() -> type[DeclarativeBase]:
    """Give tables with something of everything."""

    class Own(DeclarativeBase):
        metadata = MetaData(naming_convention=Base.metadata.naming_convention)

    class Device(Own):
        __tablename__ = "devices"

        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(64), unique=True)
        state: Mapped[str] = mapped_column(Enum("on", "off", name="state"), server_default="off")
        limits: Mapped[dict[str, Any]] = mapped_column(JSON().with_variant(JSONB(), "postgresql"))

    class Reading(Own):
        __tablename__ = "readings"
        __table_args__ = (Index("ix_readings_device_id_at", "device_id", "at"),)

        id: Mapped[int] = mapped_column(primary_key=True)
        device_id: Mapped[int] = mapped_column(ForeignKey("devices.id", ondelete="CASCADE"))
        value: Mapped[Decimal | None] = mapped_column(Numeric(10, 3))
        celsius: Mapped[int | None] = mapped_column(Celsius)
        count: Mapped[int] = mapped_column(server_default=text("0"))
        at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    return Own


async def check(database: Database, history: History, metadata: MetaData) -> list[str]:
    async with migrate.at_head(database, history) as connection:
        return await connection.run_sync(differences, metadata, history.table)


async def upgraded(database: Database, history: History, metadata: MetaData) -> list[str]:
    said: list[str] = []
    await migrate.upgrade(database, history, metadata, said.append)
    return said


async def test_what_is_written_makes_what_the_models_say_and_takes_it_back(database: Database, history: History) -> None:
    metadata = models().metadata
    file = await make_revision(database, history, metadata, "The first: all of it!", empty=False)
    assert file.name == "0001_the_first_all_of_it.py"
    assert await check(database, history, metadata) == []
    assert await upgraded(database, history, metadata) == ["upgraded to 0001_the_first_all_of_it"]
    assert await migrate.missing_tables(database, metadata) == []
    with pytest.raises(MigrationError, match="--empty"):
        await make_revision(database, history, metadata, "nothing", empty=False)
    file = await make_revision(database, history, metadata, 'say """so"""', empty=True)
    assert (file.name, "    pass" in file.read_text()) == ("0002_say_so.py", True)
    assert await upgraded(database, history, metadata) == ["upgraded to 0002_say_so"]
    await migrate.downgrade(database, history, "base", lambda _: None)
    assert len(await migrate.missing_tables(database, metadata)) == 2


CHANGES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "a type": ("readings", "value", {"type": Numeric(12, 4)}, r"readings\.value: type is NUMERIC\(12, 4\) in the models, N"),
    "nullable": (
        "readings",
        "value",
        {"nullable": False},
        r"readings\.value: nullable is False in the models, True in the m",
    ),
    "a default": (
        "readings",
        "count",
        {"server_default": text("7")},
        r"readings\.count: default is 7 in the models, .*0.* in",
    ),
}


@pytest.mark.parametrize("change", [*CHANGES, "a column", "a table", "an index", "a constraint"])
async def test_a_change_is_found_and_a_migration_made_of_it(database: Database, history: History, change: str) -> None:
    await make_revision(database, history, models().metadata, "first", empty=False)
    changed = models().metadata
    readings = changed.tables["readings"]
    if change in CHANGES:
        table, column, attributes, expected = CHANGES[change]
        await _set(changed, table, column, attributes)
    elif change == "a column":
        readings.append_column(mapped_column("place", String(10)).column)
        expected = r"column readings\.place: in the models, not in the migrations"
    elif change == "a table":
        table_named("more").tables["more"].to_metadata(changed)
        expected = r"table more: in the models, not in the migrations"
    elif change == "an index":
        readings.indexes.clear()
        expected = r"index ix_readings_device_id_at of readings: in the migrations, not in the models"
    else:
        devices = changed.tables["devices"]
        devices.constraints -= {one for one in devices.constraints if one.name == "devices_name_key"}
        expected = r"constraint devices_name_key of devices: in the migrations, not in the models"
    found = await check(database, history, changed)
    assert len(found) == 1
    assert re.match(expected, found[0]), found
    file = await make_revision(database, history, changed, "second", empty=False)
    assert file.name == "0002_second.py"
    assert await check(database, history, changed) == []
    assert len(await upgraded(database, history, changed)) == 2
    await migrate.downgrade(database, history, "base", lambda _: None)


async def _set(metadata: MetaData, table: str, column: str, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        if name == "server_default":
            fresh = mapped_column(server_default=value).column.server_default
            metadata.tables[table].c[column].server_default = fresh
        else:
            setattr(metadata.tables[table].c[column], name, value)


async def test_two_names_of_one_type_are_no_change(database: Database, history: History) -> None:
    write(history, "0001_floats", None, 'op.create_table("floats", sa.Column("x", sa.Double), sa.Column("y", sa.Float))')
    metadata = MetaData()
    Table("floats", metadata, Column("x", Float), Column("y", Double))
    assert await check(database, history, metadata) == []


async def test_tables_that_a_start_has_made_are_taken_over_by_the_first_migration(
    database: Database, history: History
) -> None:
    metadata = models().metadata
    await database.create_tables(metadata)
    async with database.begin() as connection:
        await connection.execute(text("INSERT INTO devices (name, limits) VALUES ('a', '{}')"))
    await make_revision(database, history, metadata, "first", empty=False)
    changed = models().metadata
    changed.tables["readings"].append_column(mapped_column("place", String(10)).column)
    await make_revision(database, history, changed, "place", empty=False)
    said = await upgraded(database, history, changed)
    assert said == [
        "took 0001_first as done: its tables were there already, made by an earlier start",
        "upgraded to 0002_place",
    ]
    assert await rows(database, "SELECT name, state FROM devices") == [("a", "off")]
    assert await rows(database, "SELECT place FROM readings") == []
    assert await upgraded(database, history, changed) == []


async def test_a_model_that_is_younger_than_the_last_start_is_no_hindrance(database: Database, history: History) -> None:
    metadata = models().metadata
    await database.create_tables(metadata)
    table_named("more").tables["more"].to_metadata(metadata)
    await make_revision(database, history, metadata, "first", empty=False)
    assert (await upgraded(database, history, metadata))[0].startswith("took 0001_first as done")
    assert await migrate.missing_tables(database, metadata) == []


async def test_tables_of_another_shape_are_not_taken_over(database: Database, history: History) -> None:
    await database.create_tables(models().metadata)
    changed = models().metadata
    changed.tables["readings"].append_column(mapped_column("place", String(10)).column)
    await make_revision(database, history, changed, "first", empty=False)
    with pytest.raises(MigrationError, match=r"column readings\.place: in 0001_first, not in the database") as told:
        await upgraded(database, history, changed)
    assert "\n" not in str(told.value)
    assert await migrate.at(database, history) == ()


async def test_nothing_stays_of_the_comparison(database: Database, history: History) -> None:
    if database.is_sqlite:
        pytest.skip("it is in memory")
    write(history, "0001_fails", None, "1 / 0")
    with pytest.raises(MigrationError, match="0001_fails"):
        await check(database, history, MetaData())
    assert await rows(database, "SELECT datname FROM pg_database WHERE datname LIKE 'routemq_scratch%'") == []


async def test_a_role_that_may_not_create_databases_compares_in_a_schema(history: History) -> None:
    url = postgres().new_database()
    name = url.partition("@/")[2].partition("?")[0]
    owner = Database(url)
    async with owner.begin() as connection:
        await connection.execute(text(f"CREATE ROLE {name} LOGIN"))
        await connection.execute(text(f"ALTER DATABASE {name} OWNER TO {name}"))
    database = Database(postgres().url(name, name))
    metadata = models().metadata
    await database.create_tables(metadata)
    await make_revision(database, history, metadata, "first", empty=False)
    assert await check(database, history, metadata) == []
    assert (await upgraded(database, history, metadata))[0].startswith("took 0001_first as done")
    assert await rows(owner, "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'routemq_scratch%'") == []
    await database.close()
    await owner.close()
