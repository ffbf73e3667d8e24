"""Settings: from the environment over `.env` over defaults, checked, documented, and without passwords in what is shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from config.settings import Settings, default_client_id, load, masked, unknown_variables, variables
from core.errors import SettingsError
from tests.support.worker import ROOT

FIELDS = Settings.model_fields


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in FIELDS:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_example_file_has_every_setting_with_its_default_and_a_comment_and_nothing_else() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    found = [(number, line[1:].split("=", 1)) for number, line in enumerate(lines) if re.match(r"#[A-Z_]+=", line)]
    assert [name for _, (name, _) in found] == [name.upper() for name in FIELDS]
    for number, (name, value) in found:
        description = FIELDS[name.lower()].description
        assert description is not None
        assert value == masked(name, FIELDS[name.lower()].default)
        assert lines[number - 1] == f"# {description.rstrip('.')}"
        assert lines[number - 2] == ""
    assert all(line.startswith("#") or not line for line in lines)


def test_the_example_file_with_its_lines_taken_out_of_comment_is_the_defaults(alone: Path) -> None:
    text = re.sub(r"(?m)^#(?=[A-Z_]+=)", "", (ROOT / ".env.example").read_text())
    (alone / ".env").write_text(text)
    assert load() == Settings.model_validate({})
    assert unknown_variables() == []


def test_the_documentation_has_every_setting() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    documented = dict(re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`)? ?\|", text, re.MULTILINE))
    assert documented == {name.upper(): masked(name, field.default) for name, field in FIELDS.items()}


def test_the_environment_goes_before_the_file_and_the_file_before_the_default(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (alone / ".env").write_text('MQTT_KEEPALIVE=30\nDB_POOL_SIZE="5"\n# DB_MAX_OVERFLOW=1\n')
    monkeypatch.setenv("MQTT_KEEPALIVE", "40")
    settings = load()
    assert (settings.mqtt_keepalive, settings.db_pool_size, settings.db_max_overflow) == (40, 5, 20)
    assert variables()["MQTT_KEEPALIVE"] == ("40", "environment")
    assert variables()["DB_POOL_SIZE"] == ("5", ".env")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MQTT_URL", "host"),
        ("MQTT_VERSION", "4"),
        ("MQTT_TRANSPORT", "carrier pigeon"),
        ("MQTT_CLIENT_ID", "two words"),
        ("MQTT_KEEPALIVE", "0"),
        ("MQTT_SESSION_EXPIRY", "-1"),
        ("MQTT_RECEIVE_MAXIMUM", "65536"),
        ("MQTT_CA_FILE", "/no/such/file"),
        ("MQTT_CERT_FILE", "/no/such/file"),
        ("MQTT_KEY_FILE", "/no/such/file"),
        ("MQTT_TLS_VERIFY", "perhaps"),
        ("DATABASE_URL", "nothing"),
        ("DB_POOL_SIZE", "0"),
        ("DB_MAX_OVERFLOW", "-1"),
        ("DB_POOL_TIMEOUT", "0"),
        ("DB_POOL_RECYCLE", "0"),
        ("DB_STATEMENT_TIMEOUT", "0"),
        ("DB_POOLER", "session"),
        ("MQTT_STATUS_TOPIC", "a/#"),
        ("MQTT_RESPONSE_TOPIC", "a/+"),
        ("DB_AUTO_MIGRATE", "perhaps"),
        ("MAX_PAYLOAD_BYTES", "0"),
        ("MAX_PAYLOAD_DEPTH", "1001"),
        ("HANDLER_TIMEOUT", "0"),
        ("RETRY_ATTEMPTS", "0"),
        ("RETRY_FIRST", "-1"),
        ("RETRY_FACTOR", "0.5"),
        ("RETRY_MOST", "x"),
        ("DEAD_LETTER_MAX", "0"),
        ("DEAD_LETTER_MAX_BYTES", "0"),
        ("BREAKER_AFTER", "-1"),
        ("DEDUP_KEEP", "0"),
        ("RATE_LIMIT_URL", "memcached://h"),
        ("LOG_LEVEL", "loud"),
        ("SHUTDOWN_TIMEOUT", "-1"),
    ],
)
def test_a_wrong_value_is_one_line_with_name_value_and_place(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load()
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{name}=")
    assert value in line
    assert "environment" in line


def test_each_setting_with_a_limit_is_tried_above() -> None:
    test: Any = test_a_wrong_value_is_one_line_with_name_value_and_place
    tried = next(mark for mark in test.pytestmark if mark.name == "parametrize")
    # Any text is a password.
    assert {name for name, _ in tried.args[1]} == {name.upper() for name in FIELDS} - {"MQTT_KEY_PASSWORD"}


def test_passwords_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MQTT_URL", "mqtt://me:s3cr3t@host")
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://me:s3cr3t@host/x")
    monkeypatch.setenv("MQTT_KEY_PASSWORD", "s3cr3t")
    settings = load()
    for name in FIELDS:
        assert "s3cr3t" not in masked(name, getattr(settings, name))
    assert masked("mqtt_key_password", settings.mqtt_key_password) == "***"
    assert "s3cr3t" not in repr(settings.connect_options())


def test_the_client_identifier_is_the_same_for_a_folder_and_another_for_another(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = default_client_id()
    assert first == default_client_id()
    assert re.fullmatch(r"[0-9a-z-]{1,21}", first)
    other = alone / "Ein langer Name mit Umlauten äöü"
    other.mkdir()
    monkeypatch.chdir(other)
    assert default_client_id() != first
    assert re.fullmatch(r"[0-9a-z-]{1,21}", default_client_id())


def test_the_connection_gets_all_that_is_set(monkeypatch: pytest.MonkeyPatch, alone: Path) -> None:
    for name in ("ca", "cert", "key"):
        (alone / f"{name}.pem").write_text("x")
        monkeypatch.setenv(f"MQTT_{name.upper()}_FILE", str(alone / f"{name}.pem"))
    for name, value in {
        "MQTT_URL": "wss://me:p%40@host:444/path",
        "MQTT_VERSION": "3.1.1",
        "MQTT_CLIENT_ID": "c",
        "MQTT_KEEPALIVE": "7",
        "MQTT_SESSION_EXPIRY": "8",
        "MQTT_RECEIVE_MAXIMUM": "9",
        "MQTT_KEY_PASSWORD": "pw",
        "MQTT_TLS_VERIFY": "false",
    }.items():
        monkeypatch.setenv(name, value)
    options = load().connect_options()
    assert (options.scheme, options.host, options.port, options.path) == ("wss", "host", 444, "/path")
    assert (options.username, options.password, options.version, options.client_id) == ("me", "p@", "3.1.1", "c")
    assert (options.keepalive, options.session_expiry, options.receive_maximum) == (7, 8, 9)
    assert (options.ca_file, options.cert_file) == (alone / "ca.pem", alone / "cert.pem")
    assert (options.key_file, options.key_password, options.tls_verify) == (alone / "key.pem", "pw", False)
