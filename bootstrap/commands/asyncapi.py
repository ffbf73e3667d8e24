"""The command `asyncapi`: an AsyncAPI document of what the application takes and answers."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from bootstrap.discovery import discover
from config.settings import Settings
from core.asyncapi.document import About, describe
from core.asyncapi.page.page import page
from core.asyncapi.server import Server
from core.errors import StartError

if TYPE_CHECKING:
    from core.transport.options import ConnectOptions

Form = Literal["yaml", "json", "html"]
_PROTOCOLS = {"mqtts": "secure-mqtt", "ws": "ws", "wss": "wss"}


def write(settings: Settings, form: Form, output: Path | None) -> None:
    """Write the document of the application's routes to ``output``, or to standard output.

    Raise StartError if the file cannot be written, if ``pyproject.toml`` cannot be read, or as ``discover`` does.
    """
    document = describe(discover(), about(Path.cwd()), server(settings))
    text = render(document, form)
    if output is None:
        # Write bytes, so that a terminal with another encoding does not matter.
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StartError(f"{output} cannot be written: {error.strerror}; name another file with --output") from None


def render(document: dict[str, Any], form: Form) -> str:
    """Return ``document`` as text in the form ``form``."""
    if form == "json":
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if form == "html":
        return page(document)
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def about(folder: Path) -> About:
    """Return what ``pyproject.toml`` in ``folder`` says of the project. The title is its name, or else the folder's.

    Raise StartError if the file cannot be read.
    """
    file = folder / "pyproject.toml"
    project: dict[str, Any] = {}
    try:
        if file.is_file():
            project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError) as error:
        raise StartError(f"{file.name} cannot be read: {' '.join(str(error).split())}") from None
    title, version = project.get("name") or folder.resolve().name or "application", project.get("version") or "0.1.0"
    return About(str(title), str(version), str(project.get("description") or ""))


def server(settings: Settings) -> Server:
    """Return what the document may say of the broker: no user, no password and no file of the settings."""
    options = settings.connect_options()
    return Server(
        _host(options),
        _PROTOCOLS.get(options.scheme, "mqtt"),
        options.version,
        options.path if options.websocket else None,
        _description(options),
        password=options.username is not None or options.password is not None,
        certificate=options.cert_file is not None,
        # A default made of host and folder would make the document differ from machine to machine.
        client_id=settings.mqtt_client_id or None,
        keepalive=options.keepalive,
        session_expiry=options.session_expiry,
    )


def _host(options: ConnectOptions) -> str:
    if options.scheme == "unix":
        return options.host
    return f"[{options.host}]:{options.port}" if ":" in options.host else f"{options.host}:{options.port}"


def _description(options: ConnectOptions) -> str:
    return {
        "embedded": "The broker that the worker starts for development.",
        "unix": "A broker on the worker's own machine, behind a Unix socket.",
    }.get(options.scheme, "")


class _Dumper(yaml.SafeDumper):
    """Writes a text of several lines as a block, and repeats a value instead of referring to the earlier one."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
