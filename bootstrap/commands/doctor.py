"""The command `doctor`: check that everything `run` needs is in place, and print one line for each check."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import insert, text

from bootstrap import storage
from bootstrap.connections import asked
from bootstrap.discovery import discover
from config.settings import masked, unknown_variables, variables
from core import rate_limit
from core.database.current import configured
from core.database.driver.pooler import changes_connections
from core.database.migrations import migrate
from core.errors import BrokerUnreachableError, RouteMQError, TransportError, one_line
from core.model import Base, Model
from core.records.tables import sessions
from core.session.identity import Verdict, may_be_asked, meaning
from core.transport.brokers.embedded import EmbeddedBroker, find_running
from core.transport.connect import connector
from core.transport.connection import Deaf

if TYPE_CHECKING:
    from rich.console import Console

    from config.settings import Settings
    from core.transport.options import ConnectOptions

MAX_WAIT = 30.0
"""Seconds that one check may take. A broker may be asked twice, by MQTT 5 and by 3.1.1, for 10 s each."""
MIN_FREE = 500 * 1024 * 1024
"""Bytes of the disk below which a warning is given."""
STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


class Finding(NamedTuple):
    """What one check has found.

    - ``state``: "ok", "warn" (`run` works, but a person should know of something) or "fail" (`run` does not work).
    - ``said``: the line for a person.
    """

    state: str
    said: str


async def doctor(settings: Settings, console: Console) -> int:
    """Run all checks and print what they find. Return the exit code: 1 if something keeps `run` from working."""
    checks: dict[str, Callable[[Settings], Awaitable[Finding]]] = {
        "settings": _settings,
        "routes": _routes,
        "broker": _broker,
        "database": _database,
        "migrations": _migrations,
        "dead letters": _dead_letters,
        "backlog": _backlog,
        "disk": _disk,
    }
    if settings.rate_limit_url:
        checks["rate limits"] = _rate_limits
    if _exactly_once():
        checks["redelivery"] = _redelivery
    failed = False
    for name, check in checks.items():
        try:
            async with asyncio.timeout(MAX_WAIT):
                finding = await check(settings)
        except TimeoutError:
            finding = Finding("fail", f"there was no answer within {MAX_WAIT:.0f} s")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what was found
            said = str(error) if isinstance(error, RouteMQError) else storage.driver_message(error)
            finding = Finding("fail", said)
        failed = failed or finding.state == "fail"
        console.print(f"{finding.state:6}", style=STYLES[finding.state], end="")
        console.print(f"{name:14}{finding.said}", markup=False, soft_wrap=True)
    await Model.close()
    return 1 if failed else 0


async def _settings(settings: Settings) -> Finding:
    strange = unknown_variables()
    if strange:
        return Finding("warn", "; ".join(strange))
    count = len(variables())
    if not count:
        return Finding("ok", "all have their defaults")
    return Finding("ok", f"{count} {'is' if count == 1 else 'are'} set, all others have their defaults")


async def _routes(settings: Settings) -> Finding:
    router = discover()
    filters = router.subscriptions()
    return Finding("ok", f"there are {len(router.routes)}, for which the worker subscribes to {len(filters)} topic filters")


async def _broker(settings: Settings) -> Finding:
    options = settings.connect_options()
    if options.scheme == "embedded":
        EmbeddedBroker(options)
        try:
            options = await find_running(options)
        except BrokerUnreachableError:
            return _embedded(options)
    # With a client identifier of its own, this does not touch the worker's session.
    connection = connector(replace(options, client_id=f"{options.client_id}-d", clean_start=True))(Deaf(), 1)
    try:
        connack = await connection.open()
    finally:
        await connection.close()
    if connack.maximum_qos == 0:
        return Finding("fail", f"{options.address} takes QoS 0 only, and its messages are never acknowledged")
    said = f"{options.address} answers with MQTT {connack.version}"
    if connack.version == "5":
        shared = "shared subscriptions" if connack.shared_subscriptions else "no shared subscriptions"
        size = f"at most {connack.maximum_packet_size:,} bytes" if connack.maximum_packet_size else "any size"
        said += f", and has {shared}, Receive Maximum {connack.receive_maximum:,}, packets of {size}"
    return Finding("ok", said)


def _exactly_once() -> bool:
    """Return whether there is a route that has to know messages which come again."""
    try:
        return any(route.options.delivery == "exactly_once" for route in discover().routes)
    except RouteMQError:
        # The check of the routes tells it.
        return False


async def _redelivery(settings: Settings) -> Finding:
    options = settings.connect_options()
    if options.scheme == "embedded":
        try:
            options = await find_running(options)
        except BrokerUnreachableError:
            return Finding("warn", f"the embedded broker {Verdict.NO_DUP.value}. {meaning(Verdict.NO_DUP)}")
    try:
        verdict = await asked(options)
    except (TransportError, TimeoutError) as error:
        reason = "it did not answer" if isinstance(error, TimeoutError) else one_line(error, name=False)
        said = f"{options.address} {Verdict.UNKNOWN.value}: {reason}"
        return Finding("warn", f"{said}. {may_be_asked(options.client_id)}")
    return Finding("ok" if verdict is Verdict.CIRCLE else "warn", f"{options.address} {verdict.value}. {meaning(verdict)}")


def _embedded(options: ConnectOptions) -> Finding:
    """Return whether the embedded broker could listen."""
    for port in (options.port, options.port + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((options.host if options.host != "localhost" else "127.0.0.1", port))
            except OSError as error:
                return Finding("fail", f"the embedded broker cannot listen on port {port}: {one_line(error)}")
    return Finding(
        "ok",
        f"none runs yet; `run` starts an embedded one on {options.host}, "
        f"port {options.port} (MQTT 3.1.1) and port {options.port + 1} (MQTT 5)",
    )


async def _database(settings: Settings) -> Finding:
    storage.configure(settings)
    if not Model._is_enabled:
        return Finding("warn", "there is none, because DATABASE_URL is empty; nothing is stored")
    database = configured()
    await storage.own_tables()
    async with database.session() as session:
        version = "SELECT sqlite_version()" if database.is_sqlite else "SELECT version()"
        said = str((await session.execute(text(version))).scalar_one()).split(" on ")[0]
        # This row shows that the database can be written to. It is rolled back.
        row = {"client_id": "doctor", "broker": "-", "owner": "-", "filters": [], "changed_at": datetime.now(UTC)}
        await session.execute(insert(sessions).values(row))
        await session.rollback()
    said = f"SQLite {said}" if database.is_sqlite else said
    if database.options.pooler and not await changes_connections(database.url, database.options):
        said += ", has no pooler before it that DB_POOLER=transaction is needed for,"
    return Finding("ok", f"{masked('database_url', str(database))} is {said} and can be written to")


async def _migrations(settings: Settings) -> Finding:
    if not Model._is_enabled:
        return Finding("ok", "there is no database to migrate")
    ours = storage.history()
    count = len(ours.revisions())
    if not count:
        return Finding("ok", "there are none yet; `run` creates the tables of app/models that are missing")
    lacking = [each.revision for each in await migrate.pending(configured(), ours)]
    if not lacking:
        missing = await migrate.missing_tables(configured(), Base.metadata)
        if missing:
            return Finding(
                "fail",
                f"none makes the table {migrate.few(missing)}: "
                'run python main.py db revision -m "..." and python main.py db upgrade',
            )
        return Finding("ok", f"all have been run ({count})")
    if settings.auto_migrate:
        return Finding("ok", f"the database lacks {migrate.few(lacking)}, which `run` runs when it starts")
    return Finding("fail", f"the database lacks {migrate.few(lacking)}: run python main.py db upgrade")


async def _dead_letters(settings: Settings) -> Finding:
    kept = await storage.dead_letters(settings).count()
    in_file = await storage.dead_letter_file(settings).count() if Model._is_enabled else 0
    said = "there are none"
    if kept:
        said = f"{kept:,} of at most {settings.dead_letter_max:,}; python main.py dead-letters list shows them"
    if in_file:
        said += f"; {in_file:,} more that the table refused are in {storage.FOLDER / 'dead_letters.jsonl'}"
    return Finding("warn" if kept or in_file else "ok", said)


async def _backlog(settings: Settings) -> Finding:
    place = storage.backlog(settings, None).place
    assert place is not None  # noqa: S101 - it is a table or a file
    waiting = await place.routes()
    if not waiting:
        return Finding("ok", "no route stands")
    told = []
    for name, count in waiting.items():
        latest = (await place.latest(most=1, route=name))[0].letter
        oldest = (await place.read(most=1, route=name))[0].letter
        since = oldest.last_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        told.append(f"{latest.reason} ({count:,} messages wait since {since})")
    return Finding("warn", "; ".join(told))


async def _disk(settings: Settings) -> Finding:
    storage.FOLDER.mkdir(parents=True, exist_ok=True)
    probe = storage.FOLDER / ".doctor"
    probe.write_text("x")
    probe.unlink()
    free = shutil.disk_usage(storage.FOLDER).free
    said = f"{free / 2**30:,.1f} GiB are free for {storage.FOLDER}/, which can be written to"
    return Finding("warn" if free < MIN_FREE else "ok", said)


async def _rate_limits(settings: Settings) -> Finding:
    rate_limit.configure(settings.rate_limit_url)
    try:
        await rate_limit.check()
    finally:
        await rate_limit.close()
    return Finding("ok", f"they are counted on {masked('rate_limit_url', settings.rate_limit_url)}, which answers")
