"""The pytest plugin: fixtures for tests of applications.

``app`` is the application's router, ``db`` is ``Model`` on a clean database, and ``client`` sends messages through both.
They are asked for by name; a test that asks for none of them pays nothing. Clean databases are copies of SQLite files, or of
a PostgreSQL database where the environment variable TEST_DATABASE_URL names a server whose user may create some.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from bootstrap.testing.databases import Clones
    from core.model import Model
    from core.router import Router
    from core.testing import TestClient


@pytest.fixture(scope="session")
def app() -> Router:
    """Give the application's router, with the routes of all modules of ``app/routers``."""
    from bootstrap.discovery import discover  # noqa: PLC0415 - only for tests that want it

    return discover()


@pytest.fixture(scope="session")
def _clones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clones]:
    from bootstrap import storage  # noqa: PLC0415
    from bootstrap.discovery import import_models  # noqa: PLC0415
    from bootstrap.testing.databases import clones  # noqa: PLC0415
    from core.model import Model  # noqa: PLC0415

    async def set_up(url: str) -> None:
        Model.configure(url)
        import_models()
        try:
            await storage.prepare(upgrades=True)
        finally:
            await Model.close()

    made = clones(os.environ.get("TEST_DATABASE_URL", ""), tmp_path_factory.mktemp("databases"), set_up)
    yield made
    made.close()


@pytest_asyncio.fixture
async def db(_clones: Clones) -> AsyncIterator[type[Model]]:
    """Give ``Model``, configured with a database of the test's own, in which all tables are there and empty."""
    from core.model import Model  # noqa: PLC0415

    url = _clones.take()
    Model.configure(url)
    yield Model
    await Model.close()
    _clones.give_back(url)


@pytest_asyncio.fixture
async def client(app: Router, db: type[Model]) -> AsyncIterator[TestClient]:
    """Give a TestClient of the application on the database of ``db``."""
    from bootstrap.discovery import controllers  # noqa: PLC0415
    from core.testing import TestClient  # noqa: PLC0415

    async with TestClient(app, controllers=controllers()) as made:
        yield made
