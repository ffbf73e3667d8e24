"""Run the blocks of a page in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.worker import clean_environment

MAX_SECONDS = 110


def run(page: Path, folder: Path) -> dict[int, str]:
    """Run the blocks of ``page`` in ``folder``, and return the traceback of each by its line, empty where it ran."""
    report = folder / "report.json"
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.documentation.page", str(page), str(report)],
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=MAX_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return {int(line): f"{said}\n{ended.stdout}" if said else "" for line, said in json.loads(report.read_text()).items()}
