"""Whose fault an error is: each one caused for real."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import threading
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest
from asyncpg.exceptions import TargetServerAttributeNotMatched
from sqlalchemy import text
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import DBAPIError, IntegrityError

from core.database.current import configured
from core.database.driver.connect import connected
from core.database.fault import Fault, fault_of
from core.database.pool import PoolOptions
from core.errors import DatabaseUnreachableError
from core.model import Model
from tests.database.conftest import url_of
from tests.support.models import Meter, Plain
from tests.support.postgres import Postgres, postgres
from tests.support.waiting import until

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


async def raised(call: Awaitable[object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        await call
    return caught.value


@pytest.fixture
async def pg() -> AsyncIterator[None]:
    Model.configure(postgres().new_database(), pool_size=2, max_overflow=0, pool_timeout=0.1)
    await configured().create_tables(Plain.metadata)
    yield
    await Model.close()


async def run(session: AsyncSession, sql: str) -> None:
    await session.execute(text(sql))


async def test_a_violated_constraint_is_the_messages_fault(database: str) -> None:
    await configured().create_tables(Plain.metadata)
    await Model.create(Meter, serial="a")
    error = await raised(Model.create(Meter, serial="a"))
    assert isinstance(error, IntegrityError)
    assert fault_of(error) is Fault.MESSAGE


async def test_wrong_data_and_wrong_sql_are_the_messages_fault(pg: None) -> None:
    for wrong in ("SELECT 1/0", "SELECT FROM WHERE"):
        async with Model.session() as session:
            assert fault_of(await raised(run(session, wrong))) is Fault.MESSAGE


@pytest.mark.case(9)
async def test_what_is_missing_in_the_database_is_the_schemas_fault(pg: None) -> None:
    missing = ("SELECT * FROM nowhere", "SELECT nothing FROM meters", "SELECT * FROM nowhere.meters")
    denied = ("CREATE ROLE nobody", "SET LOCAL ROLE nobody", "SELECT * FROM meters")
    for wrong in missing:
        async with Model.session() as session:
            assert fault_of(await raised(run(session, wrong))) is Fault.SCHEMA
    async with Model.session() as session:
        for statement in denied[:-1]:
            await run(session, statement)
        assert fault_of(await raised(run(session, denied[-1]))) is Fault.SCHEMA


@pytest.mark.case(9)
async def test_what_is_missing_in_sqlite_is_the_schemas_fault(tmp_path: Path) -> None:
    Model.configure(url_of("sqlite", tmp_path))
    async with Model.session() as session:
        await run(session, "CREATE TABLE t (a)")
        for wrong in ("SELECT * FROM nowhere", "SELECT b FROM t", "INSERT INTO t (b) VALUES (1)"):
            assert fault_of(await raised(run(session, wrong))) is Fault.SCHEMA
        assert fault_of(await raised(run(session, "SELECT FROM"))) is Fault.MESSAGE
    await Model.close()


async def test_a_terminated_connection_is_the_infrastructures_fault_and_the_next_call_works(pg: None) -> None:
    async with Model.session() as session, Model.session() as other:
        pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar()
        await run(other, f"SELECT pg_terminate_backend({pid})")
        assert fault_of(await raised(run(session, "SELECT 1"))) is Fault.INFRASTRUCTURE
    await Model.create(Meter, serial="again")


async def test_an_exhausted_pool_is_the_infrastructures_fault(pg: None) -> None:
    async with Model.session() as one, Model.session() as two:
        await run(one, "SELECT 1")
        await run(two, "SELECT 1")
        assert fault_of(await raised(Model.create(Meter, serial="x"))) is Fault.INFRASTRUCTURE


async def test_a_deadlock_asks_for_another_try(pg: None) -> None:
    await Model.create_many(Meter, [{"serial": "a"}, {"serial": "b"}])

    async def change(first: str, second: str, barrier: asyncio.Barrier) -> None:
        async with Model.session() as session:
            await run(session, f"UPDATE meters SET kwh = 1 WHERE serial = '{first}'")
            await barrier.wait()
            await run(session, f"UPDATE meters SET kwh = 1 WHERE serial = '{second}'")

    barrier = asyncio.Barrier(2)
    ends = await asyncio.gather(change("a", "b", barrier), change("b", "a", barrier), return_exceptions=True)
    (error,) = [end for end in ends if end is not None]
    assert fault_of(error) is Fault.AGAIN


async def test_a_serialization_failure_asks_for_another_try(pg: None) -> None:
    await Model.create(Meter, serial="a")
    async with Model.session() as one, Model.session() as two:
        for session in (one, two):
            await run(session, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await run(session, "SELECT * FROM meters")
        await run(one, "UPDATE meters SET kwh = 1")
        await one.commit()
        assert fault_of(await raised(run(two, "UPDATE meters SET kwh = 2"))) is Fault.AGAIN


async def test_an_unknown_database_is_a_matter_of_setup(pg: None) -> None:
    Model.configure(postgres().url("nowhere"))
    assert fault_of(await raised(Model.ping())) is Fault.SETUP


async def test_an_unknown_user_is_a_matter_of_setup(pg: None) -> None:
    Model.configure(postgres().url("postgres", user="nobody"))
    assert fault_of(await raised(Model.ping())) is Fault.SETUP


@pytest.mark.parametrize("host", ["127.0.0.1:1", "no.such.host.invalid"])
async def test_a_server_that_is_not_there_is_the_infrastructures_fault(host: str) -> None:
    Model.configure(f"postgresql+asyncpg://u:p@{host}/x")
    assert fault_of(await raised(Model.ping())) is Fault.INFRASTRUCTURE
    await Model.close()


async def until_it_fails(session: AsyncSession) -> None:
    # The children of a killed server notice it a moment later.
    while True:
        await run(session, "SELECT 1")
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("how", ["fast", "immediate", "kill"])
async def test_a_server_that_stops_is_the_infrastructures_fault_until_it_is_back(
    how: Literal["fast", "immediate", "kill"],
) -> None:
    server = Postgres()
    Model.configure(server.new_database())
    await configured().create_tables(Plain.metadata)
    await Model.create(Meter, serial="before")
    async with Model.session() as session:
        await run(session, "SELECT 1")
        await asyncio.to_thread(server.kill if how == "kill" else partial(server.stop, how))
        assert fault_of(await raised(until_it_fails(session))) is Fault.INFRASTRUCTURE
    assert fault_of(await raised(Model.create(Meter, serial="x"))) is Fault.INFRASTRUCTURE
    await asyncio.to_thread(server.start)
    deadline = asyncio.get_running_loop().time() + 30
    while asyncio.get_running_loop().time() < deadline:
        try:
            await Model.create(Meter, serial="after")
        except (DBAPIError, DatabaseUnreachableError) as error:
            assert fault_of(error) is Fault.INFRASTRUCTURE
            await asyncio.sleep(0.1)
        else:
            break
    assert await Model.exists(Meter, serial="after")
    await Model.close()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Path]:
    file = tmp_path / "x.db"
    Model.configure(f"sqlite+aiosqlite:///{file}")
    await configured().create_tables(Plain.metadata)
    yield file
    await Model.close()


async def test_a_locked_file_is_the_infrastructures_fault(sqlite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(sqlite, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with Model.session() as session:
        await run(session, "PRAGMA busy_timeout=50")
        error = await raised(run(session, "INSERT INTO meters (serial) VALUES ('x')"))
    other.close()
    assert fault_of(error) is Fault.INFRASTRUCTURE


async def test_a_reader_that_writes_after_another_writer_is_asked_again(sqlite: Path) -> None:
    async with Model.session() as session:
        await run(session, "SELECT * FROM meters")
        await Model.create(Meter, serial="a")
        error = await raised(run(session, "INSERT INTO meters (serial) VALUES ('x')"))
    assert fault_of(error) is Fault.AGAIN


async def test_a_full_disk_is_the_infrastructures_fault(sqlite: Path) -> None:
    async with Model.session() as session:
        await run(session, "PRAGMA max_page_count=1")
        error = await raised(run(session, "INSERT INTO meters (serial) VALUES (hex(zeroblob(100000)))"))
    assert fault_of(error) is Fault.INFRASTRUCTURE


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
async def test_a_read_only_file_is_the_infrastructures_fault(sqlite: Path) -> None:
    await Model.close()
    sqlite.chmod(stat.S_IREAD)
    Model.configure(f"sqlite+aiosqlite:///{sqlite}")
    assert fault_of(await raised(Model.create(Meter, serial="x"))) is Fault.INFRASTRUCTURE


async def test_a_file_that_cannot_be_opened_is_the_infrastructures_fault(tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()
    Model.configure(f"sqlite+aiosqlite:///{tmp_path}/folder.db")
    assert fault_of(await raised(Model.ping())) is Fault.INFRASTRUCTURE
    await Model.close()
    # The driver's thread ends a moment after the failure is known, and must find the event loop open.
    await until(lambda: not [thread for thread in threading.enumerate() if "_connection_worker" in thread.name])


async def test_a_file_that_is_no_database_is_a_matter_of_setup(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"this is a letter, not a database. " * 100)
    Model.configure(f"sqlite+aiosqlite:///{tmp_path}/x.db")
    assert fault_of(await raised(Model.ping())) is Fault.SETUP
    await Model.close()


def test_a_handlers_own_errors_are_the_messages_fault() -> None:
    for error in (ValueError("x"), ConnectionRefusedError(111, "some web service"), FileNotFoundError(), TimeoutError()):
        assert fault_of(error) is Fault.MESSAGE


async def test_causes_and_groups_are_looked_through() -> None:
    Model.configure("postgresql+asyncpg://u:p@127.0.0.1:1/x")
    error = await raised(Model.ping())
    wrapped = RuntimeError("storing failed")
    wrapped.__cause__ = error
    assert fault_of(wrapped) is Fault.INFRASTRUCTURE
    assert fault_of(ExceptionGroup("both", [ValueError(), wrapped])) is Fault.INFRASTRUCTURE
    assert fault_of(ExceptionGroup("both", [ValueError(), KeyError()])) is Fault.MESSAGE
    circle = ValueError()
    circle.__cause__ = circle
    assert fault_of(circle) is Fault.MESSAGE
    await Model.close()


@pytest.mark.case(6)
async def test_what_keeps_a_connection_from_being_made_is_never_the_messages() -> None:
    # No server is a primary, as in the middle of a fail-over: asyncpg says so with an error that has no SQLSTATE.
    class NoPrimary(DefaultDialect):
        def connect(self, *arguments: Any, **options: Any) -> Any:
            raise TargetServerAttributeNotMatched("None of the hosts match the target attribute requirement")

    with pytest.raises(DatabaseUnreachableError, match="match the target attribute") as caught:
        connected(NoPrimary(), [], {}, PoolOptions())
    assert fault_of(caught.value) is Fault.INFRASTRUCTURE


@pytest.mark.case(6)
async def test_a_connection_to_a_standby_is_thrown_away(tmp_path: Path) -> None:
    Model.configure(url_of("postgresql", tmp_path))
    database = configured()
    await database.create_tables(Plain.metadata)

    async def process() -> int:
        async with database.engine.connect() as connection:
            return int((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())

    before = await process()
    assert await process() == before
    with pytest.raises(DBAPIError) as caught:
        async with database.begin() as connection:
            await connection.execute(text("SET TRANSACTION READ ONLY"))
            await connection.execute(text("INSERT INTO meters (serial) VALUES ('a')"))
    assert fault_of(caught.value) is Fault.INFRASTRUCTURE
    assert await process() != before
    await Model.close()
