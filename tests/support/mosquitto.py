"""A real Mosquitto for tests: on a free port, with persistence, to be stopped, killed and frozen."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"])
# The variable shows what a machine without Mosquitto does.
_FOUND = not os.environ.get("ROUTEMQ_WITHOUT_MOSQUITTO")
MOSQUITTO = shutil.which("mosquitto", path=_PATH) if _FOUND else None
MOSQUITTO_PUB = shutil.which("mosquitto_pub", path=_PATH) if _FOUND else None


def require_mosquitto() -> None:
    """Skip the test where Mosquitto is not installed; fail it where it has to be (in CI)."""
    if MOSQUITTO is None or MOSQUITTO_PUB is None:
        if os.environ.get("ROUTEMQ_REQUIRE_MOSQUITTO"):
            pytest.fail("Mosquitto is not installed, and ROUTEMQ_REQUIRE_MOSQUITTO is set")
        pytest.skip("Mosquitto is not installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_pair() -> int:
    """Give a free port whose next one is free as well."""
    while True:
        port = free_port()
        with socket.socket() as following:
            try:
                following.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def wait_for_port(port: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


class Mosquitto:
    """One broker; ``config`` is added to a listener on ``port`` that takes anybody and keeps everything."""

    def __init__(self, folder: Path, config: str = "", *, listener: str = "", anonymous: bool = True) -> None:
        require_mosquitto()
        self.folder = folder
        self.port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\n{listener}\n"
            f"allow_anonymous {'true' if anonymous else 'false'}\n"
            f"persistence true\npersistence_location {folder}/\nautosave_interval 1\nuser root\n"
            f"max_queued_messages 0\n{config}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> Mosquitto:
        assert MOSQUITTO is not None
        log = (self.folder / "mosquitto.log").open("ab")
        self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._config)], stdout=log, stderr=log)
        log.close()
        wait_for_port(self.port)
        return self

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None
