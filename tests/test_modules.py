"""Every module can be imported, by itself and on this Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("app", "bootstrap", "config", "core")
# Alembic runs it, in the midst of a migration.
RUN_BY_ALEMBIC = "env.py"

IMPORT = """
import importlib, sys, traceback
failed = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception:
        failed.append(f"{name}: {traceback.format_exc()}")
sys.exit("\\n".join(failed) or 0)
"""


def test_every_module_can_be_imported() -> None:
    files = [file.relative_to(ROOT) for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    names = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files if file.name != RUN_BY_ALEMBIC]
    assert len(names) > 100
    ended = subprocess.run([sys.executable, "-c", IMPORT, *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
