"""The pytest plugin: fixtures for tests of applications.

- ``app``: the application's router.
- ``db``: ``Model`` on a clean database.
- ``client``: sends messages through both.

A test asks for them by name. One that asks for none of them is not slowed down. Clean databases are copies of a SQLite file.
If the environment variable TEST_DATABASE_URL names a PostgreSQL server whose user may create databases, they are copies of a
database there.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from bootstrap.testing.databases import CleanDatabases
    from core.model import Model
    from core.router import Router
    from core.testing import TestClient


@pytest.fixture(scope="session")
def app() -> Router:
    """Return the application's router, with the routes of all modules of ``app/routers``."""
    from bootstrap.discovery import discover  # noqa: PLC0415 - only for tests that want it

    return discover()


@pytest.fixture(scope="session")
def _clean_databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CleanDatabases]:
    from bootstrap import storage  # noqa: PLC0415
    from bootstrap.discovery import import_models  # noqa: PLC0415
    from bootstrap.testing.databases import clean_databases  # noqa: PLC0415
    from core.model import Model  # noqa: PLC0415

    async def set_up(url: str) -> None:
        Model.configure(url)
        import_models()
        try:
            await storage.prepare(upgrades=True)
        finally:
            await Model.close()

    databases = clean_databases(os.environ.get("TEST_DATABASE_URL", ""), tmp_path_factory.mktemp("databases"), set_up)
    yield databases
    databases.close()


@pytest_asyncio.fixture
async def db(_clean_databases: CleanDatabases) -> AsyncIterator[type[Model]]:
    """Yield ``Model``, configured with a database of the test's own. All tables are there, and empty."""
    from core.model import Model  # noqa: PLC0415

    url = _clean_databases.take()
    Model.configure(url)
    yield Model
    await Model.close()
    _clean_databases.give_back(url)


@pytest_asyncio.fixture
async def client(app: Router, db: type[Model]) -> AsyncIterator[TestClient]:
    """Yield a TestClient of the application, on the database of ``db``."""
    from bootstrap.discovery import controllers  # noqa: PLC0415
    from core.testing import TestClient  # noqa: PLC0415

    async with TestClient(app, controllers=controllers()) as test_client:
        yield test_client
