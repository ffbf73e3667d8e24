"""The engine of a database, on its first connections."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy import text

from core.database.engine import Database

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 40
WORKERS = 8


async def test_several_may_be_the_first_to_connect_to_a_new_file(tmp_path: Path) -> None:
    # SQLite's busy timeout does not cover the switch to the write-ahead log, which each of them wants to make.
    for round_ in range(ROUNDS):
        databases = [Database(f"sqlite+aiosqlite:///{tmp_path}/{round_}.db") for _ in range(WORKERS)]
        modes = await asyncio.gather(*(journal_mode(database) for database in databases))
        assert modes == ["wal"] * WORKERS


async def journal_mode(database: Database) -> str:
    try:
        async with database.engine.connect() as connection:
            return str((await connection.execute(text("PRAGMA journal_mode"))).scalar_one())
    finally:
        await database.close()
