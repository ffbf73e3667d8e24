"""MQTT_URL, taken apart and shown."""

from __future__ import annotations

import pytest

from core.errors import SettingsError, mask
from core.transport.options import parse_url


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "user", "password"),
    [
        ("mqtt://host", "mqtt", "host", 1883, None, None),
        ("mqtt://host/", "mqtt", "host", 1883, None, None),
        ("mqtts://host", "mqtts", "host", 8883, None, None),
        ("ws://host", "ws", "host", 80, None, None),
        ("wss://host:8084", "wss", "host", 8084, None, None),
        ("embedded://127.0.0.1:1883", "embedded", "127.0.0.1", 1883, None, None),
        ("mqtt://me:p%40ss%2Fword@host:1884", "mqtt", "host", 1884, "me", "p@ss/word"),
        ("mqtt://me@host", "mqtt", "host", 1883, "me", None),
        ("mqtt://[::1]:1883", "mqtt", "::1", 1883, None, None),
    ],
)
def test_what_a_url_says(url: str, scheme: str, host: str, port: int, user: str | None, password: str | None) -> None:
    options = parse_url(url)
    assert (options.scheme, options.host, options.port) == (scheme, host, port)
    assert (options.username, options.password) == (user, password)


def test_the_path_is_websockets() -> None:
    assert parse_url("ws://host/socket").path == "/socket"
    assert parse_url("ws://host").path == "/mqtt"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "scheme"),
        ("host:1883", "scheme"),
        ("http://host", "'http'"),
        ("mqtt://", "names no host"),
        ("mqtt://host:x", "mqtt://user:pass@host:1883"),
        ("mqtt://host:99999", "1 to 65535"),
        ("mqtt://host:0", "port 0"),
        ("mqtt://host/path", "nothing may stand behind"),
        ("mqtt://host?x=1", "nothing may stand behind"),
        ("mqtt://me:s3cr3t/x@host", "mqtt://"),
        ("unix://relative/path", "absolute path"),
        ("unix://", "absolute path"),
        ("mqtt://[::1", "cannot be read"),
    ],
)
def test_a_url_that_cannot_be_is_one_line_without_the_password(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match="MQTT_URL=") as caught:
        parse_url(url)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mqtt://me:s3cr3t@host", "mqtt://me:***@host"),
        ("mqtt://me:s3@cr@et@host", "mqtt://me:***@host"),
        ("me:s3cr3t@host", "me:***@host"),
        ("mqtt://host:1883", "mqtt://host:1883"),
        ("mqtt://me@host", "mqtt://me@host"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    assert mask(url) == shown


def test_a_unix_socket_has_a_path_and_nothing_else() -> None:
    options = parse_url("unix:///run/a%20b.sock")
    assert (options.path, options.address) == ("/run/a b.sock", "unix:///run/a b.sock")


def test_the_address_for_people_has_no_credentials() -> None:
    assert parse_url("mqtt://me:s3cr3t@host:1884").address == "mqtt://host:1884"
    assert parse_url("embedded://127.0.0.1").address == "mqtt://127.0.0.1:1883"
    assert parse_url("mqtt://[::1]").address == "mqtt://[::1]:1883"
    assert parse_url("wss://h/m").address == "wss://h:443/m"
    assert "s3cr3t" not in repr(parse_url("mqtt://me:s3cr3t@host"))
