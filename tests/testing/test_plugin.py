"""The pytest plugin in a project of its own, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.support.postgres import fetch, postgres
from tests.support.worker import ROOT, Project

ROUTER = """
from app.models.note import Note
from core.model import Model
from core.router import Router

router = Router()

@router.on("notes/<name>")
async def store(context):
    note = await Model.create(Note, name=context["params"]["name"])
    return {"id": note.id}
"""
MODEL = """
from sqlalchemy.orm import Mapped, mapped_column
from core.model import Base

class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
"""
TESTS = """
import pytest
from app.models.note import Note
from core.model import Model

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(10))
async def test_it_is_stored(client, db, number):
    assert await client.send("notes/a", {}) == {"id": 1}
    assert await db.count(Note) == await Model.count(Note) == 1

def test_routes(app):
    assert [route.name for route in app.routes] == ["notes/<name>"]
"""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_every_test_has_a_clean_database(tmp_path: Path, database: str) -> None:
    project = Project(tmp_path / "project", {"notes": ROUTER}, {"note": MODEL})
    (project.folder / "test_notes.py").write_text(TESTS)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TEST_DATABASE_URL": ""}
    url = postgres().new_database()
    if database == "postgresql":
        environment["TEST_DATABASE_URL"] = url
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project.folder, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = (await process.communicate())[0].decode()
    assert "11 passed" in said, said
    assert process.returncode == 0
    left = await fetch(url, "SELECT datname FROM pg_database WHERE datname LIKE 'routemq_test_%'")
    assert left == []
