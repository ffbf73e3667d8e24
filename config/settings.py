"""The application's settings. The environment goes before `.env`, and `.env` before the defaults."""

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
from core.transport.options import ConnectOptions, largest_packet, parse_url

ENV_FILE = Path(".env")
CLIENT_ID = "<client_id>"
"""In a topic, this is replaced by the worker's client identifier."""
PREFIXES = (
    "MQTT_",
    "DATABASE_",
    "DB_",
    "RETRY_",
    "DEAD_LETTER_",
    "BREAKER_",
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
        raise ValueError("no readable file is there")
    return path


File = Annotated[Path | None, BeforeValidator(_file)]


def _setting(default: Any, description: str, allowed: str, **limits: Any) -> Any:
    """Return a field of ``Settings``. An error about its value says that it must be ``allowed``."""
    return Field(default, description=description, json_schema_extra={"allowed": allowed}, **limits)


class Settings(BaseModel):
    """All settings, in the order of `.env.example`. Times are in seconds."""

    model_config = ConfigDict(extra="ignore", frozen=True, validate_default=True)

    # The broker
    mqtt_url: str = _setting(
        "embedded://127.0.0.1:1883",
        "The broker: mqtt://user:pass@host:1883, mqtts://, ws:// or wss://. With embedded:// the worker starts one itself.",
        "a URL such as mqtt://user:pass@host:1883",
    )
    mqtt_version: Literal["5", "3.1.1"] = _setting(
        "5", "The protocol version. With 5, the worker falls back to 3.1.1 if the broker refuses 5.", "5 or 3.1.1"
    )
    mqtt_transport: Literal["auto", "native", "aiomqtt"] = _setting(
        "auto",
        "The client library: native (the fast one, for MQTT 5 over TCP and TLS) or aiomqtt. auto takes native where it can.",
        "auto, native or aiomqtt",
    )
    mqtt_client_id: str = _setting(
        "",
        "The client identifier, under which the broker keeps the session. Empty: one made of host name and folder.",
        "text without spaces, different for each worker",
        pattern=r"^[^\s]*$",
        max_length=200,
    )
    mqtt_keepalive: int = _setting(
        60,
        "Seconds of silence after which the worker checks that the connection still works (Keep Alive).",
        "a whole number from 5 to 65535",
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
        "How many messages may be in hand at once. The broker waits with sending more.",
        "a whole number from 1 to 65535",
        ge=1,
        le=65_535,
    )
    mqtt_status_topic: str = _setting(
        "",
        "The topic of the worker's retained status, online or offline. "
        "<client_id> is replaced by the worker's own. Empty: no status.",
        "a topic such as routemq/<client_id>/status, or empty",
    )
    mqtt_response_topic: str = _setting(
        "routemq/<client_id>/responses",
        "The topic on which devices answer request(). <client_id> is replaced by the worker's own.",
        "a topic without wildcards",
    )
    mqtt_ca_file: File = _setting(
        None, "The certificate authorities to trust (PEM). Empty: the system's.", "the path of a readable file"
    )
    mqtt_cert_file: File = _setting(None, "The client's certificate (PEM).", "the path of a readable file")
    mqtt_key_file: File = _setting(None, "The client's private key (PEM).", "the path of a readable file")
    mqtt_key_password: SecretStr = _setting(SecretStr(""), "The password of the client's private key.", "text")
    mqtt_tls_verify: bool = _setting(
        True,  # noqa: FBT003 - the default of a setting
        "Whether the broker's certificate is verified. Set it to false only to try things out.",
        "true or false",
    )

    # The database
    database_url: str = _setting(
        "sqlite+aiosqlite:///storage/routemq.db",
        "The database: a SQLite file, or postgresql+asyncpg://user:pass@host/name. Empty: no database.",
        "a URL such as postgresql+asyncpg://user:pass@host/name, or empty",
    )
    db_pool_size: int = _setting(
        10, "How many connections to the database are kept open.", "a whole number from 1 to 1000", ge=1, le=1000
    )
    db_max_overflow: int = _setting(
        20, "How many more may be opened while all of those are in use.", "a whole number from 0 to 1000", ge=0, le=1000
    )
    db_pool_timeout: float = _setting(
        30, "Seconds to wait for a free connection to the database.", "a positive number", gt=0
    )
    db_pool_recycle: int = _setting(
        3600, "Seconds after which a connection to the database is replaced.", "a whole number of at least 1", ge=1
    )
    db_statement_timeout: float = _setting(
        20,
        "Seconds that a statement may take on PostgreSQL, also while it waits for a lock. Migrations may take longer.",
        "a positive number",
        gt=0,
    )
    db_pooler: Literal["", "transaction"] = _setting(
        "",
        "A pooler before PostgreSQL: transaction for PgBouncer with pool_mode=transaction and its like. Empty: none, or "
        "one that keeps a connection for each client.",
        "transaction or empty",
    )
    db_auto_migrate: bool | None = _setting(
        None,
        "Whether the worker runs missing migrations when it starts. Empty: true for SQLite, false for other databases.",
        "true, false or empty",
    )

    # Delivery
    max_payload_bytes: int = _setting(
        4_194_304, "The most bytes that a body may have, also after decompression.", "a whole number of at least 1", ge=1
    )
    max_payload_depth: int = _setting(
        100, "How deeply lists and maps in a body may be nested.", "a whole number from 1 to 1000", ge=1, le=1000
    )
    handler_timeout: float = _setting(
        30, "Seconds that a handler may take before it is cancelled.", "a positive number", gt=0
    )
    retry_attempts: int = _setting(
        3, "How often a message is tried before it becomes a dead letter.", "a whole number from 1 to 1000", ge=1, le=1000
    )
    retry_first: float = _setting(0.2, "Seconds between the first try and the second.", "a number of at least 0", ge=0)
    retry_factor: float = _setting(
        4, "How many times longer each further pause between tries is.", "a number of at least 1", ge=1
    )
    retry_most: float = _setting(30, "The longest pause between two tries, in seconds.", "a number of at least 0", ge=0)
    dead_letter_max: int = _setting(
        100_000,
        "How many dead letters are stored. None is deleted to make room: beyond that, the routes that make more stand.",
        "a whole number of at least 1",
        ge=1,
    )
    dead_letter_max_bytes: int = _setting(
        1_073_741_824, "How many bytes of bodies the dead letters may have.", "a whole number of at least 1", ge=1
    )
    breaker_after: int = _setting(
        50,
        "How many messages of a route have to fail in a row, all in the same way, until the route stands. 0: never.",
        "a whole number of at least 0",
        ge=0,
    )
    dedup_keep: float = _setting(
        604_800, "Seconds for which the keys of routes with dedup are remembered.", "a positive number", gt=0
    )
    rate_limit_url: str = _setting(
        "",
        "Where rate limits are counted: redis://host:6379 for all processes together. Empty: in each process by itself.",
        "a URL such as redis://host:6379, or empty",
    )

    # The process
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = _setting(
        "INFO", "The least severe messages that are logged: DEBUG, INFO, WARNING or ERROR.", "DEBUG, INFO, WARNING or ERROR"
    )
    shutdown_timeout: float = _setting(
        30, "Seconds that a stopping worker waits for the messages in hand.", "a number of at least 0", ge=0
    )

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
            raise ValueError("it must begin with redis://, rediss:// or unix://")
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
            # Imported only here, because SQLAlchemy takes half a second to import and some commands need no database.
            from core.database.url import check_url  # noqa: PLC0415

            check_url(value)
        return value

    @field_validator("mqtt_key_file")
    @classmethod
    def _key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate = info.data.get("mqtt_cert_file")
        if certificate is None and value is not None:
            raise ValueError("MQTT_CERT_FILE must be set too")
        return value

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Return what repr shows, which is no password."""
        return [(name, masked(name, getattr(self, name))) for name in type(self).model_fields]

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
        """The topic of this worker's status, or an empty text if it has none."""
        return self.mqtt_status_topic.replace(CLIENT_ID, self.client_id)

    @property
    def auto_migrate(self) -> bool:
        """Whether the worker runs missing migrations when it starts."""
        return self.database_url.startswith("sqlite") if self.db_auto_migrate is None else self.db_auto_migrate

    def retry(self) -> Retry:
        """Return the retry policy of routes that name none."""
        return Retry(self.retry_attempts, self.retry_first, self.retry_factor, self.retry_most)

    def limits(self) -> Limits:
        """Return the limits of bodies."""
        return Limits(self.max_payload_bytes, self.max_payload_depth)

    def pool(self) -> PoolOptions:
        """Return the options of the pool of database connections."""
        return PoolOptions(
            self.db_pool_size,
            self.db_max_overflow,
            self.db_pool_timeout,
            self.db_pool_recycle,
            self.db_pooler,
            self.db_statement_timeout,
        )

    def connect_options(self) -> ConnectOptions:
        """Return the options of the connection to the broker."""
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
            maximum_packet_size=largest_packet(self.max_payload_bytes),
            ca_file=self.mqtt_ca_file,
            cert_file=self.mqtt_cert_file,
            key_file=self.mqtt_key_file,
            key_password=self.mqtt_key_password.get_secret_value() or None,
            tls_verify=self.mqtt_tls_verify,
        )


def default_client_id() -> str:
    """Return a client identifier that stays the same for this machine and this folder.

    It has at most 21 characters, all of them 0-9, a-z or "-". Every broker accepts 23 (MQTT 3.1.1, 3.1.3.1), and the
    connection for publishing adds two.
    """
    folder = Path.cwd().resolve()
    host = socket.gethostname()
    digest = hashlib.sha256(f"{host}:{folder}".encode()).hexdigest()[:8]
    name = re.sub(r"[^0-9a-z]+", "-", folder.name.lower()).strip("-") or "routemq"
    return f"{name[:12].strip('-')}-{digest}"


def variables() -> dict[str, tuple[str, str]]:
    """Return the variables that are set, by their names in capitals: the value, and "environment" or the file's name."""
    found: dict[str, tuple[str, str]] = {}
    for name, value in dotenv_values(ENV_FILE).items() if ENV_FILE.is_file() else ():
        found[name.upper()] = (value or "", ENV_FILE.name)
    for name, value in os.environ.items():
        if name.lower() in Settings.model_fields:
            found[name.upper()] = (value, "environment")
    return found


def load() -> Settings:
    """Return the settings in force. Raise SettingsError with one line for each value that is not allowed."""
    values = {name: value for name, (value, _) in variables().items() if name.lower() in Settings.model_fields}
    try:
        return Settings.model_validate({name.lower(): value for name, value in values.items()})
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(one) for one in error.errors())) from None


def unknown_variables() -> list[str]:
    """Return a line for each variable of `.env` that looks like a setting and is none, mostly because it is misspelt."""
    known = [name.upper() for name in Settings.model_fields]
    lines = []
    for name in variables():
        if name not in known and name.startswith(PREFIXES):
            close = difflib.get_close_matches(name, known, 1)
            hint = f", did you mean {close[0]}?" if close else ""
            lines.append(f"{name} in {ENV_FILE.name} is no setting{hint}")
    return lines


def masked(name: str, value: Any) -> str:
    """Return the value of the setting ``name`` as people may see it, without passwords."""
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


def _explain(error: Any) -> str:
    """Return one line about ``error`` of pydantic: the variable, its value, where it is set, and what is allowed."""
    name = str(error["loc"][0]).upper()
    value, source = variables().get(name, ("", "default"))
    cause = error.get("ctx", {}).get("error")
    where = "the environment" if source == "environment" else source
    if isinstance(cause, SettingsError):
        return f"{cause} (in {where})"
    extra = Settings.model_fields[name.lower()].json_schema_extra
    allowed = extra["allowed"] if isinstance(extra, dict) else ""
    reason = f" ({cause})" if cause is not None else ""
    return f"{name}={masked(name, value)} in {where}: must be {allowed}{reason}"
