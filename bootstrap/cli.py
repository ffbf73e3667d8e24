"""The commands of main.py."""

from __future__ import annotations

import asyncio
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from bootstrap.commands.make import Kind
from config.settings import Settings, load, unknown
from core import __version__
from core.errors import RouteMQError, StartError

if TYPE_CHECKING:
    from collections.abc import Coroutine

app = typer.Typer(
    help="RouteMQ: from an MQTT broker into a database.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Qos = Annotated[int, typer.Option(min=0, max=1, help="0: sent once; 1: until the broker has acknowledged it.")]


def settings() -> Settings:
    """Give the settings in force, and warn of variables that are none."""
    loaded = load()
    for line in unknown():
        err.print(f"warning: {line}", style="yellow", markup=False, soft_wrap=True)
    return loaded


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,  # noqa: FBT002
) -> None:
    """Run the worker, if no command is given."""
    if version:
        out.print(f"RouteMQ {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        run()


@app.command()
def run() -> None:
    """Run the worker until Ctrl-C or SIGTERM; the same as no command."""
    from bootstrap import app as application  # noqa: PLC0415 - what a command needs is imported by it alone

    raise typer.Exit(application.run(settings()))


@app.command()
def config() -> None:
    """Show the settings in force, and where each comes from."""
    from bootstrap.commands.show import settings_table  # noqa: PLC0415

    settings_table(settings(), out)


@app.command()
def routes() -> None:
    """Show the routes, and the topic filters they subscribe to."""
    from bootstrap.commands.show import routes_table  # noqa: PLC0415
    from bootstrap.discovery import discover  # noqa: PLC0415

    routes_table(discover(), out)


@app.command()
def asyncapi(
    as_yaml: Annotated[bool, typer.Option("--yaml", help="As YAML; the default.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,  # noqa: FBT002
    as_html: Annotated[bool, typer.Option("--html", help="As a page for people, in one file.")] = False,  # noqa: FBT002
    output: Annotated[Path | None, typer.Option(dir_okay=False, help="A file; without it standard output.")] = None,
) -> None:
    """Write the AsyncAPI 3.0 document of the routes."""
    if as_yaml + as_json + as_html > 1:
        raise typer.BadParameter("give one of --yaml, --json and --html")
    from bootstrap.commands.asyncapi import write  # noqa: PLC0415

    write(settings(), "json" if as_json else "html" if as_html else "yaml", output)


@app.command()
def publish(
    topic: str,
    payload: Annotated[str, typer.Argument(help="The body; - reads it from standard input.")],
    qos: Qos = 1,
    retain: Annotated[bool, typer.Option("--retain", help="Have the broker keep it for later subscribers.")] = False,  # noqa: FBT002
) -> None:
    """Publish one message."""
    from bootstrap.commands.publish import publish_one  # noqa: PLC0415

    body = sys.stdin.buffer.read() if payload == "-" else payload.encode()
    _run(publish_one(settings(), topic, body, qos=qos, retain=retain))


@app.command()
def simulate(
    devices: Annotated[int, typer.Option(min=1, help="How many devices.")] = 50,
    rate: Annotated[float, typer.Option(min=0.01, help="Messages per second, of all devices together.")] = 100,
    duration: Annotated[float | None, typer.Option(min=0.01, help="Seconds; without it until Ctrl-C.")] = None,
    qos: Qos = 1,
) -> None:
    """Publish believable readings of many devices on devices/<device_id>/data."""
    from bootstrap.commands.simulate import simulate as simulated  # noqa: PLC0415

    _run(simulated(settings(), out, devices=devices, rate=rate, duration=duration, qos=qos))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    topic: Annotated[str, typer.Option(help="Made of each line's fields, such as 'rtl_433/<model>/<id>'.")],
    rate: Annotated[float | None, typer.Option(min=0.01, help="Lines per second; without it as fast as it goes.")] = None,
    qos: Qos = 1,
) -> None:
    """Publish each line of a file of JSON objects, as it stands, to the topic made of its fields."""
    from bootstrap.commands.replay import replay as replayed  # noqa: PLC0415

    _run(replayed(settings(), out, file, topic, rate=rate, qos=qos))


@app.command()
def doctor() -> None:
    """Look whether everything is there that run needs."""
    from bootstrap.commands.doctor import doctor as examine  # noqa: PLC0415

    _run(examine(load(), out))


@app.command()
def shell() -> None:
    """Open a Python prompt with the application loaded; or run what standard input has."""
    from bootstrap.commands.shell import shell as opened  # noqa: PLC0415

    raise typer.Exit(opened(settings(), lambda line: out.print(line, markup=False, soft_wrap=True)))


@app.command()
def make(
    kind: Annotated[Kind, typer.Argument(help="What to make.", show_default=False)],
    name: Annotated[str, typer.Argument(help="Its name, such as MeterReading or meter_reading.")],
) -> None:
    """Write a small working file to begin with, and say what to do next."""
    from bootstrap.commands.make import make as made  # noqa: PLC0415

    made(kind, name, lambda line: out.print(line, markup=False, soft_wrap=True))


dead_letters = typer.Typer(
    help="Look at messages that could not be handled, run them again, drop them.", no_args_is_help=True
)
app.add_typer(dead_letters, name="dead-letters")

Ids = Annotated[list[int] | None, typer.Argument(help="Ids, as list shows them.")]
OfRoute = Annotated[str | None, typer.Option("--route", help="Those of the route with this name.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


@dead_letters.command("list")
def list_dead_letters(
    route: OfRoute = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the latest.")] = 50,
) -> None:
    """Show the latest dead letters."""
    from bootstrap.commands.dead_letters import list_them  # noqa: PLC0415

    _run(list_them(settings(), out, route=route, most=limit))


@dead_letters.command()
def show(number: Annotated[int, typer.Argument(metavar="ID")]) -> None:
    """Show one with everything that is known of it."""
    from bootstrap.commands.dead_letters import show as shown  # noqa: PLC0415

    _run(shown(settings(), out, number))


@dead_letters.command("replay")
def replay_dead_letters(ids: Ids = None, route: OfRoute = None, all_: All = False) -> None:  # noqa: FBT002
    """Run them through the application, in this process; one whose handler succeeds is removed."""
    from bootstrap.commands.dead_letters import replay as replayed  # noqa: PLC0415

    _run(replayed(settings(), out, ids or [], route=route, all_=all_))


@dead_letters.command()
def drop(ids: Ids = None, route: OfRoute = None, all_: All = False) -> None:  # noqa: FBT002
    """Remove them for good."""
    from bootstrap.commands.dead_letters import drop as dropped  # noqa: PLC0415

    _run(dropped(settings(), out, ids or [], route=route, all_=all_))


db = typer.Typer(help="Bring the database's tables forward and back, and write migrations.", no_args_is_help=True)
app.add_typer(db, name="db")


@db.command()
def upgrade(to: Annotated[str, typer.Argument(metavar="REVISION", help="The one to stop at.")] = "head") -> None:
    """Run the migrations that the database lacks."""
    from bootstrap.commands import db as commands  # noqa: PLC0415

    _run(commands.upgrade(settings(), out, to))


# -1 is no option.
@db.command(context_settings={"ignore_unknown_options": True})
def downgrade(
    to: Annotated[str, typer.Argument(metavar="REVISION", help="The one to be at then; -1: the one before; base: none.")],
) -> None:
    """Take migrations back."""
    from bootstrap.commands import db as commands  # noqa: PLC0415

    _run(commands.downgrade(settings(), out, to))


@db.command()
def revision(
    message: Annotated[str, typer.Option("-m", "--message", help="What it does, in a few words.")],
    empty: Annotated[bool, typer.Option("--empty", help="To be filled in by hand.")] = False,  # noqa: FBT002
) -> None:
    """Write a migration of what has changed in app/models."""
    from bootstrap.commands import db as commands  # noqa: PLC0415

    _run(commands.revision(settings(), out, message, empty=empty))


@db.command()
def current() -> None:
    """Show which migrations the database is at."""
    from bootstrap.commands import db as commands  # noqa: PLC0415

    _run(commands.current(settings(), out))


@db.command()
def history() -> None:
    """Show all migrations, the first one first."""
    from bootstrap.commands import db as commands  # noqa: PLC0415

    _run(commands.history(settings(), out))


@db.command()
def check() -> None:
    """Look whether a model has changed without a migration."""
    from bootstrap.commands import db as commands  # noqa: PLC0415

    _run(commands.check(settings(), out))


def _run(command: Coroutine[Any, Any, int]) -> None:
    raise typer.Exit(asyncio.run(command))


def main() -> None:
    """Run the command line; an error that a person can act on is one line, without a traceback."""
    try:
        app()
    except RouteMQError as error:
        if isinstance(error, StartError) and error.__cause__ is not None:
            # A broken module of the user's: the place in it is what helps.
            traceback.print_exception(error.__cause__)
        for line in str(error).splitlines():
            err.print(f"error: {line}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
