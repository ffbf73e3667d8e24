"""Settings and routes as tables."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from rich.table import Table

from config.settings import Settings, given, shown
from core.mqtt.topics import covers

if TYPE_CHECKING:
    from rich.console import Console

    from core.route import RouteOptions
    from core.router import Router


def settings_table(settings: Settings, console: Console) -> None:
    """Print what is in force, and where it comes from; without passwords."""
    sources = given()
    table = Table("setting", "value", "from", box=None, pad_edge=False, header_style="bold")
    for name in Settings.model_fields:
        value = shown(name, getattr(settings, name))
        source = sources.get(name.upper(), ("", "default"))[1]
        if name == "mqtt_client_id" and not value:
            value, source = settings.client_id, "host name and folder"
        table.add_row(name.upper(), value, source, style=None if source == "default" else "bold")
    console.print(table, markup=False)


def routes_table(router: Router, console: Console) -> None:
    """Print the routes in the order in which they are asked, and what each one subscribes to."""
    sent = {subscription.topic_filter for subscription in router.subscriptions()}
    table = Table(
        "pattern", "filter", "qos", "handler", "options", "defined at", box=None, pad_edge=False, header_style="bold"
    )
    for route in router.routes:
        topic_filter = route.pattern.topic_filter
        if topic_filter not in sent:
            topic_filter = f"(in {next(wide for wide in sorted(sent) if covers(wide, topic_filter))})"
        table.add_row(
            route.pattern.text,
            topic_filter,
            str(route.options.qos),
            route.handler_name,
            ", ".join(_options(route.options, len(route.middleware))),
            route.defined_at,
        )
    console.print(table, markup=False)


def _options(options: RouteOptions, middleware: int) -> list[str]:
    """Give the options that differ from their defaults."""
    said = []
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name != "qos" and value != field.default:
            said.append(f"{field.name}={getattr(value, '__name__', value)}")
    if middleware:
        said.append(f"middleware={middleware}")
    return said
