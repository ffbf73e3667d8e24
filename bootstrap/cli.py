"""The commands of main.py. Each imports what it needs when it is run."""

from __future__ import annotations

import asyncio
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from bootstrap.commands.make import Kind
from config.settings import Settings, load, unknown_variables
from core import __version__
from core.errors import RouteMQError, StartError

if TYPE_CHECKING:
    from collections.abc import Coroutine

app = typer.Typer(
    help="""RouteMQ, the application framework between an MQTT broker and a database.

    Without a command, the worker is run. `python main.py COMMAND --help` explains a command.
    """,
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Qos = Annotated[int, typer.Option(min=0, max=1, help="0 sends a message once, 1 until the broker has acknowledged it.")]


def settings() -> Settings:
    """Return the settings in force, and print a warning for each variable that looks like a setting and is none."""
    loaded = load()
    for line in unknown_variables():
        err.print(f"warning: {line}", style="yellow", markup=False, soft_wrap=True)
    return loaded


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,  # noqa: FBT002
) -> None:
    """Run the worker if no command is given."""
    if version:
        out.print(f"RouteMQ {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        run()


@app.command()
def run() -> None:
    """Run the worker until Ctrl-C or SIGTERM.

    It finishes the messages in hand before it ends. A second signal cuts this short.
    """
    from bootstrap import app as application  # noqa: PLC0415 - what a command needs is imported by it alone

    raise typer.Exit(application.run(settings()))


@app.command()
def config() -> None:
    """Show all settings and where each value comes from.

    Passwords are not shown.
    """
    from bootstrap.commands.show import settings_table  # noqa: PLC0415

    settings_table(settings(), out)


@app.command()
def routes() -> None:
    """Show all routes and the topic filters they subscribe to.

    They are shown in the order in which a topic is compared with them.
    """
    from bootstrap.commands.show import routes_table  # noqa: PLC0415
    from bootstrap.discovery import discover  # noqa: PLC0415

    routes_table(discover(), out)


@app.command()
def asyncapi(
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Write YAML. This is the default.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON.")] = False,  # noqa: FBT002
    as_html: Annotated[bool, typer.Option("--html", help="Write a page for people to read.")] = False,  # noqa: FBT002
    output: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write to this file and not to standard output.")
    ] = None,
) -> None:
    """Write an AsyncAPI 3.0 document of the routes.

    It describes the messages that the application takes, and its answers.
    """
    if as_yaml + as_json + as_html > 1:
        raise typer.BadParameter("choose one of --yaml, --json and --html")
    from bootstrap.commands.asyncapi import write  # noqa: PLC0415

    write(settings(), "json" if as_json else "html" if as_html else "yaml", output)


@app.command()
def publish(
    topic: Annotated[str, typer.Argument(help="The topic, without wildcards.")],
    payload: Annotated[str, typer.Argument(help="The payload. With -, it is read from standard input.")],
    qos: Qos = 1,
    retain: Annotated[bool, typer.Option("--retain", help="Let the broker keep the message for later subscribers.")] = False,  # noqa: FBT002
) -> None:
    """Publish one message."""
    from bootstrap.commands.publish import publish_one  # noqa: PLC0415

    body = sys.stdin.buffer.read() if payload == "-" else payload.encode()
    _run(publish_one(settings(), topic, body, qos=qos, retain=retain))


@app.command()
def simulate(
    devices: Annotated[int, typer.Option(min=1, help="The number of devices.")] = 50,
    rate: Annotated[float, typer.Option(min=0.01, help="Messages per second, of all devices together.")] = 100,
    duration: Annotated[
        float | None, typer.Option(min=0.01, help="Seconds until it ends. Without it, Ctrl-C ends it.")
    ] = None,
    qos: Qos = 1,
) -> None:
    """Publish made-up readings of many devices.

    The topics are devices/<device_id>/data. The routes of the example store these readings.
    """
    from bootstrap.commands.simulate import simulate as simulated  # noqa: PLC0415

    _run(simulated(settings(), out, devices=devices, rate=rate, duration=duration, qos=qos))


@app.command()
def replay(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A file with a JSON object on each line.")
    ],
    topic: Annotated[str, typer.Option(help="The topic, with names of fields in it, such as 'rtl_433/<model>/<id>'.")],
    rate: Annotated[float | None, typer.Option(min=0.01, help="Lines per second. Without it, as many as possible.")] = None,
    qos: Qos = 1,
) -> None:
    """Publish the lines of a file, each a JSON object.

    The lines are not changed. The topic of each line is made from its fields. A field that is missing or empty becomes
    `unknown` in the topic, and characters that a topic level cannot hold become `_`.
    """
    from bootstrap.commands.replay import replay as replayed  # noqa: PLC0415

    _run(replayed(settings(), out, file, topic, rate=rate, qos=qos))


@app.command()
def doctor() -> None:
    """Check that everything `run` needs is in place.

    Each check prints a line that begins with ok, warn or fail. After warn, `run` works, but you should know of something. If
    a check fails, the exit code is 1.
    """
    from bootstrap.commands.doctor import doctor as examine  # noqa: PLC0415

    _run(examine(load(), out))


@app.command()
def shell() -> None:
    """Open a Python prompt with the application loaded.

    You can use await, the models and controllers by their names, and send(topic, payload), which runs a message through the
    application. If standard input is no terminal, it is run as a script.
    """
    from bootstrap.commands.shell import shell as opened  # noqa: PLC0415

    raise typer.Exit(opened(settings(), lambda line: out.print(line, markup=False, soft_wrap=True)))


@app.command()
def make(
    kind: Annotated[Kind, typer.Argument(help="The kind of file.", show_default=False)],
    name: Annotated[str, typer.Argument(help="The name, such as MeterReading or meter_reading.")],
) -> None:
    """Write a small file that works, as a first version.

    It is written below app/ or tests/, and uses files of the same name that are there already. No file is overwritten. The
    command says what to do next.
    """
    from bootstrap.commands.make import make as made  # noqa: PLC0415

    made(kind, name, lambda line: out.print(line, markup=False, soft_wrap=True))


dead_letters = typer.Typer(help="Show, replay or drop messages that could not be handled.", no_args_is_help=True)
app.add_typer(dead_letters, name="dead-letters")

Ids = Annotated[list[int] | None, typer.Argument(help="Choose the dead letters with these ids, as list shows them.")]
OfRoute = Annotated[str | None, typer.Option("--route", help="Choose the dead letters of the route with this name.")]
All = Annotated[bool, typer.Option("--all", help="Choose all dead letters.")]


@dead_letters.command("list")
def list_dead_letters(
    route: OfRoute = None,
    limit: Annotated[int, typer.Option(min=1, help="The number of dead letters to show.")] = 50,
) -> None:
    """Show the latest dead letters, one on each line."""
    from bootstrap.commands.dead_letters import list_them  # noqa: PLC0415

    _run(list_them(settings(), out, route=route, most=limit))


@dead_letters.command()
def show(number: Annotated[int, typer.Argument(metavar="ID", help="The id, as list shows it.")]) -> None:
    """Show everything that is known about one dead letter."""
    from bootstrap.commands.dead_letters import show as shown  # noqa: PLC0415

    _run(shown(settings(), out, number))


@dead_letters.command("replay")
def replay_dead_letters(ids: Ids = None, route: OfRoute = None, all_: All = False) -> None:  # noqa: FBT002
    """Run dead letters through the application again.

    Their handlers run in this process. A dead letter whose handler succeeds is removed. Choose them by their ids, by --route
    or by --all.
    """
    from bootstrap.commands.dead_letters import replay as replayed  # noqa: PLC0415

    _run(replayed(settings(), out, ids or [], route=route, all_=all_))


@dead_letters.command()
def drop(ids: Ids = None, route: OfRoute = None, all_: All = False) -> None:  # noqa: FBT002
    """Delete dead letters for good.

    Choose them by their ids, by --route or by --all.
    """
    from bootstrap.commands.dead_letters import drop as dropped  # noqa: PLC0415

    _run(dropped(settings(), out, ids or [], route=route, all_=all_))


db = typer.Typer(help="Run, take back, write or check migrations of the database.", no_args_is_help=True)
app.add_typer(db, name="db")


@db.command()
def upgrade(
    to: Annotated[str, typer.Argument(metavar="REVISION", help="The last migration to run. head is the latest.")] = "head",
) -> None:
    """Run the migrations that the database lacks."""
    from bootstrap.commands import db as commands  # noqa: PLC0415

    _run(commands.upgrade(settings(), out, to))


# -1 is a revision, not an option.
@db.command(context_settings={"ignore_unknown_options": True})
def downgrade(
    to: Annotated[
        str, typer.Argument(metavar="REVISION", help="The migration to go back to. -1 takes one back, base takes all back.")
    ],
) -> None:
    """Take migrations back, the latest one first."""
    from bootstrap.commands import db as commands  # noqa: PLC0415

    _run(commands.downgrade(settings(), out, to))


@db.command()
def revision(
    message: Annotated[str, typer.Option("-m", "--message", help="What the migration does, in a few words.")],
    empty: Annotated[bool, typer.Option("--empty", help="Write an empty migration, to be filled in by hand.")] = False,  # noqa: FBT002
) -> None:
    """Write a migration for what has changed in app/models."""
    from bootstrap.commands import db as commands  # noqa: PLC0415

    _run(commands.revision(settings(), out, message, empty=empty))


@db.command()
def current() -> None:
    """Show at which migration the database is."""
    from bootstrap.commands import db as commands  # noqa: PLC0415

    _run(commands.current(settings(), out))


@db.command()
def history() -> None:
    """Show all migrations, the oldest first."""
    from bootstrap.commands import db as commands  # noqa: PLC0415

    _run(commands.history(settings(), out))


@db.command()
def check() -> None:
    """Check that the migrations make what app/models describes.

    If they do not, print the differences. The exit code is 1 then.
    """
    from bootstrap.commands import db as commands  # noqa: PLC0415

    _run(commands.check(settings(), out))


def _run(command: Coroutine[Any, Any, int]) -> None:
    raise typer.Exit(asyncio.run(command))


def main() -> None:
    """Run the command line. Print an error that a person can act on as one line, without a traceback."""
    try:
        app()
    except RouteMQError as error:
        if isinstance(error, StartError) and error.__cause__ is not None:
            # A module of the application is broken. The traceback shows where.
            traceback.print_exception(error.__cause__)
        for line in str(error).splitlines():
            err.print(f"error: {line}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
