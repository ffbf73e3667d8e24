"""A real Redis server for tests, on a free port and without a file."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.mosquitto import free_port, wait_for_port

REDIS = shutil.which("redis-server")


def require_redis() -> None:
    """Skip the test where Redis is not installed; fail it where it has to be (in CI)."""
    missing = [name for name, there in (("redis-server", REDIS), ("the package redis", find_spec("redis"))) if there is None]
    if missing:
        if os.environ.get("ROUTEMQ_REQUIRE_REDIS"):
            pytest.fail(f"{missing[0]} is not installed, and ROUTEMQ_REQUIRE_REDIS is set")
        pytest.skip(f"{missing[0]} is not installed")


class RedisServer:
    def __init__(self, folder: Path) -> None:
        require_redis()
        self.port = free_port()
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> RedisServer:
        assert REDIS is not None
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([REDIS, *options, "--dir", str(self._folder)], stdout=log, stderr=log)
        wait_for_port(self.port)
        return self

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None
