"""Database URLs, and which of them can be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from core.errors import SettingsError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_ASYNC_URLS = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
    "mysql": "mysql+asyncmy",
    "mariadb": "mariadb+asyncmy",
}


def check_url(text: str) -> URL:
    """Return the database URL ``text`` parsed, and make the folder of a SQLite file.

    Raise SettingsError for a URL that cannot be used. The error never shows the password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        shown = text.rpartition("@")[2] if "@" in text else text
        raise SettingsError(
            f"DATABASE_URL={shown} is not a URL. Write for instance sqlite+aiosqlite:///storage/routemq.db or "
            "postgresql+asyncpg://user:password@host/database"
        ) from None
    shown = url.render_as_string(hide_password=True)
    if url.drivername in _ASYNC_URLS:
        raise SettingsError(
            f"DATABASE_URL={shown} does not name an asynchronous driver. Write {_ASYNC_URLS[url.drivername]}://..."
        )
    try:
        dialect = url.get_dialect(_is_async=True)
        is_async = dialect.is_async
    except NoSuchModuleError:
        raise SettingsError(
            f"DATABASE_URL={shown}: there is no database {url.drivername!r}. Use sqlite+aiosqlite or postgresql+asyncpg"
        ) from None
    if not is_async:
        raise SettingsError(
            f"DATABASE_URL={shown}: {url.drivername} is not asynchronous. Use sqlite+aiosqlite or postgresql+asyncpg"
        )
    try:
        dialect.import_dbapi()
    except ImportError as error:
        raise SettingsError(
            f"DATABASE_URL={shown}: the driver is not installed ({error}). Run pip install {url.get_driver_name()}"
        ) from None
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        folder = Path(url.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"DATABASE_URL={shown}: the folder {folder} cannot be made: {error.strerror}") from None
    return url
