"""The application's settings: environment variables, over `.env`, over defaults."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import socket
from pathlib import Path
from typing import Annotated, Any, Literal

from dotenv import dotenv_values
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from core.codecs import Limits
from core.database.pool import PoolOptions
from core.errors import SettingsError, TopicError, mask
from core.mqtt.topics import check_topic
from core.retry import Retry
from core.transport.options import ConnectOptions, parse_url

ENV_FILE = Path(".env")
CLIENT_ID = "<client_id>"
"""In a topic: stands for the worker's client identifier."""
PREFIXES = (
    "MQTT_",
    "DATABASE_",
    "DB_",
    "RETRY_",
    "DEAD_LETTER_",
    "DEDUP_",
    "MAX_PAYLOAD_",
    "RATE_LIMIT_",
    "LOG_",
    "HANDLER_",
    "SHUTDOWN_",
)


def _file(value: Any) -> Any:
    if value in {None, ""}:
        return None
    path = Path(value).expanduser()
    if not path.is_file() or not os.access(path, os.R_OK):
        raise ValueError("not readable")
    return path


File = Annotated[Path | None, BeforeValidator(_file)]


def _setting(default: Any, description: str, allowed: str, **limits: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"allowed": allowed}, **limits)


class Settings(BaseModel):
    """All settings, in the order of `.env.example`. Times are in seconds."""

    model_config = ConfigDict(extra="ignore", frozen=True, validate_default=True)

    # The broker
    mqtt_url: str = _setting(
        "embedded://127.0.0.1:1883",
        "The broker: mqtt://user:pass@host:1883, mqtts://, ws://, wss://, or embedded:// for one of its own.",
        "a URL such as mqtt://user:pass@host:1883",
    )
    mqtt_version: Literal["5", "3.1.1"] = _setting(
        "5", "The protocol version; 5 falls back to 3.1.1 where the broker refuses it.", "5 or 3.1.1"
    )
    mqtt_transport: Literal["auto", "native", "aiomqtt"] = _setting(
        "auto",
        "The client library: native (MQTT 5 over TCP and TLS, the fast one) or aiomqtt; auto takes native where it can.",
        "auto, native or aiomqtt",
    )
    mqtt_client_id: str = _setting(
        "",
        "The client identifier, under which the broker keeps the session; empty: made of host name and folder.",
        "text without spaces, different for each worker",
        pattern=r"^[^\s]*$",
        max_length=200,
    )
    mqtt_keepalive: int = _setting(
        60,
        "Seconds of silence after which the connection is probed (Keep Alive).",
        "a whole number of 5 to 65535",
        ge=5,
        le=65_535,
    )
    mqtt_session_expiry: int = _setting(
        86_400,
        "Seconds for which the broker keeps the session of a worker that is gone (MQTT 5).",
        "a whole number of seconds from 0 to 4294967295",
        ge=0,
        le=4_294_967_295,
    )
    mqtt_receive_maximum: int = _setting(
        1000,
        "How many messages may be in hand at once; beyond it the broker waits.",
        "a whole number of 1 to 65535",
        ge=1,
        le=65_535,
    )
    mqtt_status_topic: str = _setting(
        "",
        "The topic of the worker's retained status, online or offline; <client_id> stands for its own; empty: none.",
        "a topic such as routemq/<client_id>/status, or empty",
    )
    mqtt_response_topic: str = _setting(
        "routemq/<client_id>/responses",
        "The topic on which devices answer request(); <client_id> stands for the worker's own.",
        "a topic without wildcards",
    )
    mqtt_ca_file: File = _setting(
        None, "The authorities to trust (PEM); empty: the system's.", "the path of a readable file"
    )
    mqtt_cert_file: File = _setting(None, "The client's certificate (PEM).", "the path of a readable file")
    mqtt_key_file: File = _setting(None, "The client's private key (PEM).", "the path of a readable file")
    mqtt_key_password: SecretStr = _setting(SecretStr(""), "The password of the client's private key.", "text")
    mqtt_tls_verify: bool = _setting(
        True,  # noqa: FBT003 - the default of a setting
        "Whether the broker's certificate is verified; false only to try things out.",
        "true or false",
    )

    # The database
    database_url: str = _setting(
        "sqlite+aiosqlite:///storage/routemq.db",
        "The database, or postgresql+asyncpg://user:pass@host/name; empty: none.",
        "a URL such as postgresql+asyncpg://user:pass@host/name, or empty",
    )
    db_pool_size: int = _setting(
        10, "Connections that are kept open to the database.", "a whole number of 1 to 1000", ge=1, le=1000
    )
    db_max_overflow: int = _setting(
        20, "Connections that are made beyond those when they are taken.", "a whole number of 0 to 1000", ge=0, le=1000
    )
    db_pool_timeout: float = _setting(30, "Seconds to wait for a free connection.", "a positive number", gt=0)
    db_pool_recycle: int = _setting(3600, "Seconds after which a connection is replaced.", "a whole number from 1", ge=1)
    db_auto_migrate: bool | None = _setting(
        None,
        "Whether run upgrades the database itself; empty: true for SQLite files, false for all else.",
        "true, false or empty",
    )

    # Delivery
    max_payload_bytes: int = _setting(
        4_194_304, "The largest body that is decoded, also after decompression, in bytes.", "a whole number from 1", ge=1
    )
    max_payload_depth: int = _setting(
        100, "How deeply lists and maps of a body may be nested.", "a whole number of 1 to 1000", ge=1, le=1000
    )
    handler_timeout: float = _setting(30, "Seconds that a handler may take before it is cut off.", "a positive number", gt=0)
    retry_attempts: int = _setting(
        3, "How often a message runs before it is a dead letter.", "a whole number of 1 to 1000", ge=1, le=1000
    )
    retry_first: float = _setting(0.2, "Seconds before its second run.", "a number from 0", ge=0)
    retry_factor: float = _setting(4, "How many times longer each further pause is.", "a number from 1", ge=1)
    retry_most: float = _setting(30, "The longest pause between two runs, in seconds.", "a number from 0", ge=0)
    dead_letter_max: int = _setting(100_000, "How many dead letters are kept; the oldest go.", "a whole number from 1", ge=1)
    dedup_keep: float = _setting(604_800, "Seconds for which application keys (dedup) are kept.", "a positive number", gt=0)
    rate_limit_url: str = _setting(
        "",
        "Where rate limits are counted: redis://host:6379 for several processes together; empty: in each by itself.",
        "a URL such as redis://host:6379, or empty",
    )

    # The process
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = _setting(
        "INFO", "What is logged: DEBUG, INFO, WARNING or ERROR, and all that is graver.", "DEBUG, INFO, WARNING or ERROR"
    )
    shutdown_timeout: float = _setting(30, "Seconds that a stop waits for the messages in hand.", "a number from 0", ge=0)

    @field_validator("mqtt_status_topic", "mqtt_response_topic")
    @classmethod
    def _topic(cls, value: str, info: ValidationInfo) -> str:
        try:
            if value or info.field_name == "mqtt_response_topic":
                check_topic(value.replace(CLIENT_ID, "x"))
        except TopicError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("rate_limit_url")
    @classmethod
    def _counter(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("the scheme is none of redis://, rediss://, unix://")
        return value

    @field_validator("db_auto_migrate", mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("mqtt_url")
    @classmethod
    def _broker(cls, value: str) -> str:
        parse_url(value)
        return value

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if value:
            # Only here: SQLAlchemy takes half a second to import, which commands without a database need not wait for.
            from core.database.url import check_url  # noqa: PLC0415

            check_url(value)
        return value

    @field_validator("mqtt_key_file")
    @classmethod
    def _key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("mqtt_cert_file")
        if certificate is None and value is not None:
            raise ValueError("MQTT_CERT_FILE must be set with it")
        return value

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Give what repr shows: no password."""
        return [(name, shown(name, getattr(self, name))) for name in type(self).model_fields]

    @property
    def client_id(self) -> str:
        """The client identifier in force."""
        return self.mqtt_client_id or default_client_id()

    @property
    def response_topic(self) -> str:
        """The topic on which devices answer this worker."""
        return self.mqtt_response_topic.replace(CLIENT_ID, self.client_id)

    @property
    def status_topic(self) -> str:
        """The topic of this worker's status; empty: it has none."""
        return self.mqtt_status_topic.replace(CLIENT_ID, self.client_id)

    @property
    def auto_migrate(self) -> bool:
        """Whether ``run`` upgrades the database itself."""
        return self.database_url.startswith("sqlite") if self.db_auto_migrate is None else self.db_auto_migrate

    def retry(self) -> Retry:
        """Return the policy of routes that name none."""
        return Retry(self.retry_attempts, self.retry_first, self.retry_factor, self.retry_most)

    def limits(self) -> Limits:
        """Return the limits of bodies."""
        return Limits(self.max_payload_bytes, self.max_payload_depth)

    def pool(self) -> PoolOptions:
        """Return the options of the pool of database connections."""
        return PoolOptions(self.db_pool_size, self.db_max_overflow, self.db_pool_timeout, self.db_pool_recycle)

    def connect_options(self) -> ConnectOptions:
        """Return what the transport needs of these settings."""
        url = parse_url(self.mqtt_url)
        return ConnectOptions(
            scheme=url.scheme,
            host=url.host,
            port=url.port,
            path=url.path,
            username=url.username,
            password=url.password,
            client_id=self.client_id,
            version=self.mqtt_version,
            transport=self.mqtt_transport,
            session_expiry=self.mqtt_session_expiry,
            keepalive=self.mqtt_keepalive,
            receive_maximum=self.mqtt_receive_maximum,
            ca_file=self.mqtt_ca_file,
            cert_file=self.mqtt_cert_file,
            key_file=self.mqtt_key_file,
            key_password=self.mqtt_key_password.get_secret_value() or None,
            tls_verify=self.mqtt_tls_verify,
        )


def default_client_id() -> str:
    """Give a client identifier that stays the same for this machine and this folder.

    At most 21 characters of 0-9, a-z and "-": every broker takes 23 (MQTT 3.1.1, 3.1.3.1), and publishing adds two.
    """
    folder = Path.cwd().resolve()
    host = socket.gethostname()
    digest = hashlib.sha256(f"{host}:{folder}".encode()).hexdigest()[:8]
    name = re.sub(r"[^0-9a-z]+", "-", folder.name.lower()).strip("-") or "routemq"
    return f"{name[:12].strip('-')}-{digest}"


def given(env_file: Path = ENV_FILE) -> dict[str, tuple[str, str]]:
    """Give the variables that are set, by their names in capitals: the value, and "environment" or the file's name."""
    found: dict[str, tuple[str, str]] = {}
    for name, value in dotenv_values(env_file).items() if env_file.is_file() else ():
        found[name.upper()] = (value or "", env_file.name)
    for name, value in os.environ.items():
        if name.lower() in Settings.model_fields:
            found[name.upper()] = (value, "environment")
    return found


def load(env_file: Path = ENV_FILE) -> Settings:
    """Give the settings in force. Raises SettingsError with one line for each value that cannot be."""
    values = {name: value for name, (value, _) in given(env_file).items() if name.lower() in Settings.model_fields}
    try:
        return Settings.model_validate({name.lower(): value for name, value in values.items()})
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(one, env_file) for one in error.errors())) from None


def unknown(env_file: Path = ENV_FILE) -> list[str]:
    """Give a line for each variable of `.env` that looks like a setting and is none: mostly a slip of the finger."""
    known = [name.upper() for name in Settings.model_fields]
    lines = []
    for name in given(env_file):
        if name not in known and name.startswith(PREFIXES):
            close = difflib.get_close_matches(name, known, 1)
            hint = f", did you mean {close[0]}?" if close else ""
            lines.append(f"{name} in {env_file.name} is no setting{hint}")
    return lines


def shown(name: str, value: Any) -> str:
    """Give the value of setting ``name`` for people: no password in it."""
    if isinstance(value, SecretStr):
        return "***" if value.get_secret_value() else ""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if name.lower() == "mqtt_key_password":
        return "***" if text else ""
    return mask(text) if "://" in text or name.lower().endswith("_url") else text


def _explain(error: Any, env_file: Path) -> str:
    name = str(error["loc"][0]).upper()
    value, source = given(env_file).get(name, ("", "default"))
    cause = error.get("ctx", {}).get("error")
    where = "the environment" if source == "environment" else source
    if isinstance(cause, SettingsError):
        return f"{cause} (in {where})"
    extra = Settings.model_fields[name.lower()].json_schema_extra
    allowed = extra["allowed"] if isinstance(extra, dict) else ""
    reason = f" ({cause})" if cause is not None else ""
    return f"{name}={shown(name, value)} in {where}: must be {allowed}{reason}"
