"""The commands `config` and `routes`: tables of the settings and of the routes."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from rich.table import Table

from config.settings import Settings, masked, variables
from core.mqtt.topics import covers

if TYPE_CHECKING:
    from rich.console import Console

    from core.route import RouteOptions
    from core.router import Router


def settings_table(settings: Settings, console: Console) -> None:
    """Print all settings and where each value comes from, without passwords."""
    found = variables()
    table = _table("setting", "value", "from")
    for name in Settings.model_fields:
        value = masked(name, getattr(settings, name))
        source = found.get(name.upper(), ("", "default"))[1]
        if name == "mqtt_client_id" and not value:
            value, source = settings.client_id, "host name and folder"
        table.add_row(name.upper(), value, source, style=None if source == "default" else "bold")
    console.print(table, markup=False)


def routes_table(router: Router, console: Console) -> None:
    """Print the routes in the order in which they are tried, and the topic filter of each.

    A filter that a wider one covers is not subscribed to. The wider one is shown in its place.
    """
    sent = {subscription.topic_filter for subscription in router.subscriptions()}
    table = _table("pattern", "filter", "qos", "handler", "options", "defined at")
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


def _table(*columns: str) -> Table:
    """Return an empty table. What does not fit into the terminal's width goes on in the next line, and is not cut off."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _options(options: RouteOptions, middleware: int) -> list[str]:
    """Return the options that differ from their defaults."""
    changed = []
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name != "qos" and value != field.default:
            changed.append(f"{field.name}={getattr(value, '__name__', value)}")
    if middleware:
        changed.append(f"middleware={middleware}")
    return changed
