"""Looks whether everything is there that `run` needs, and says what it finds, one line each."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import insert, text

from bootstrap import storage
from bootstrap.discovery import discover
from config.settings import given, shown, unknown
from core import rate_limit
from core.database.current import configured
from core.database.migrations import migrate
from core.errors import BrokerUnreachableError, RouteMQError, one_line
from core.model import Base, Model
from core.records.tables import sessions
from core.transport.brokers.embedded import EmbeddedBroker, find_running
from core.transport.connect import connector
from core.transport.connection import Deaf

if TYPE_CHECKING:
    from rich.console import Console

    from config.settings import Settings
    from core.transport.options import ConnectOptions

PATIENCE = 30.0
"""Seconds for each check. A broker may be asked twice, by MQTT 5 and by 3.1.1, for 10 s each."""
LITTLE_SPACE = 500 * 1024 * 1024
STYLES = {"ok": "green", "look": "yellow", "fails": "red"}


class Finding(NamedTuple):
    """``state`` is "ok", "look" (it runs, but a person should know) or "fails" (`run` would not work)."""

    state: str
    what: str


async def doctor(settings: Settings, console: Console) -> int:
    """Print what is found; give the exit code, 1 if anything keeps `run` from working."""
    checks: dict[str, Callable[[Settings], Awaitable[Finding]]] = {
        "settings": _settings,
        "routes": _routes,
        "broker": _broker,
        "database": _database,
        "migrations": _migrations,
        "dead letters": _dead_letters,
        "disk": _disk,
    }
    if settings.rate_limit_url:
        checks["rate limits"] = _rate_limits
    failed = False
    for name, check in checks.items():
        try:
            async with asyncio.timeout(PATIENCE):
                finding = await check(settings)
        except TimeoutError:
            finding = Finding("fails", f"no answer within {PATIENCE:.0f} s")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what was found
            finding = Finding("fails", storage.first_line(error) if not isinstance(error, RouteMQError) else str(error))
        failed = failed or finding.state == "fails"
        console.print(f"{finding.state:6}", style=STYLES[finding.state], end="")
        console.print(f"{name:14}{finding.what}", markup=False, soft_wrap=True)
    await Model.close()
    return 1 if failed else 0


async def _settings(settings: Settings) -> Finding:
    strange = unknown()
    if strange:
        return Finding("look", "; ".join(strange))
    return Finding("ok", f"{len(given())} set, the others have their defaults")


async def _routes(settings: Settings) -> Finding:
    router = discover()
    filters = router.subscriptions()
    return Finding("ok", f"{len(router.routes)}, by {len(filters)} topic filters")


async def _broker(settings: Settings) -> Finding:
    options = settings.connect_options()
    if options.scheme == "embedded":
        EmbeddedBroker(options)
        try:
            options = await find_running(options)
        except BrokerUnreachableError:
            return _free_ports(options)
    # A client identifier of its own: the worker's session is not touched.
    connection = connector(replace(options, client_id=f"{options.client_id}-d", clean_start=True))(Deaf(), 1)
    try:
        connack = await connection.open()
    finally:
        await connection.close()
    size = f"{connack.maximum_packet_size:,} bytes" if connack.maximum_packet_size else "any size"
    said = [f"{options.address}, MQTT {connack.version}"]
    if connack.version == "5":
        shared = "shared subscriptions" if connack.shared_subscriptions else "no shared subscriptions"
        said += [shared, f"Receive Maximum {connack.receive_maximum:,}", f"packets of {size}"]
    if connack.maximum_qos == 0:
        return Finding("fails", f"{said[0]}: it takes QoS 0 only, which cannot be acknowledged")
    return Finding("ok", ", ".join(said))


def _free_ports(options: ConnectOptions) -> Finding:
    for port in (options.port, options.port + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((options.host if options.host != "localhost" else "127.0.0.1", port))
            except OSError as error:
                return Finding("fails", f"port {port} cannot be listened on: {one_line(error)}")
    return Finding("ok", f"none runs; `run` starts an embedded one on {options.host}:{options.port} and :{options.port + 1}")


async def _database(settings: Settings) -> Finding:
    storage.configure(settings)
    if not Model._is_enabled:
        return Finding("look", "none: DATABASE_URL is empty, nothing is stored")
    database = configured()
    await storage.own_tables()
    async with database.session() as session:
        version = "SELECT sqlite_version()" if database.is_sqlite else "SELECT version()"
        said = str((await session.execute(text(version))).scalar_one()).split(" on ")[0]
        # Written and taken back.
        row = {"client_id": "doctor", "broker": "-", "owner": "-", "filters": [], "changed_at": storage.now()}
        await session.execute(insert(sessions).values(row))
        await session.rollback()
    said = f"SQLite {said}" if database.is_sqlite else said
    return Finding("ok", f"{shown('database_url', str(database))}, {said}, writable")


async def _migrations(settings: Settings) -> Finding:
    if not Model._is_enabled:
        return Finding("ok", "none: there is no database")
    ours = storage.history()
    count = len(ours.revisions())
    if not count:
        return Finding("ok", "none yet: run creates the tables of app/models that are missing")
    lacking = [each.revision for each in await migrate.pending(configured(), ours)]
    if not lacking:
        missing = await migrate.missing_tables(configured(), Base.metadata)
        if missing:
            return Finding("fails", f'no table {migrate.few(missing)}; python main.py db revision -m "..."')
        return Finding("ok", f"{count}, all of them done")
    if settings.auto_migrate:
        return Finding("ok", f"{migrate.few(lacking)} to be done, which run does itself")
    return Finding("fails", f"{migrate.few(lacking)} to be done: python main.py db upgrade")


async def _dead_letters(settings: Settings) -> Finding:
    waiting = await storage.dead_letters(settings).count()
    in_file = await storage.dead_letter_file(settings).count() if Model._is_enabled else 0
    said = (
        "none" if not waiting else f"{waiting:,} of at most {settings.dead_letter_max:,}; python main.py dead-letters list"
    )
    if in_file:
        said += f"; {in_file:,} more in {storage.FOLDER / 'dead_letters.jsonl'}, which the table refused"
    return Finding("look" if waiting or in_file else "ok", said)


async def _disk(settings: Settings) -> Finding:
    storage.FOLDER.mkdir(parents=True, exist_ok=True)
    probe = storage.FOLDER / ".doctor"
    probe.write_text("x")
    probe.unlink()
    free = shutil.disk_usage(storage.FOLDER).free
    return Finding("look" if free < LITTLE_SPACE else "ok", f"{free / 2**30:,.1f} GiB free for {storage.FOLDER}/, writable")


async def _rate_limits(settings: Settings) -> Finding:
    rate_limit.configure(settings.rate_limit_url)
    try:
        await rate_limit.check()
    finally:
        await rate_limit.close()
    return Finding("ok", f"counted on {shown('rate_limit_url', settings.rate_limit_url)}, which answers")
