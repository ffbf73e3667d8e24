"""Files that a crash or a power cut leaves whole."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRIVATE = 0o600
"""Only the owner reads and writes what devices sent."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes, and other threads, from the file at ``path`` for as long as the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock"), mode=PRIVATE):
        yield


def replace_text(path: Path, text: str) -> None:
    """Have the file at ``path`` hold ``text``, on the disk, when this returns.

    A crash on the way leaves the old file or the new one. Raise what the file system raises.
    """
    written = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE), "w", encoding="utf-8") as file:  # noqa: PTH123 - the mode from the start
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
    except BaseException:
        written.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def append_text(path: Path, text: str) -> None:
    """Append ``text`` to the file at ``path``. It is on the disk when this returns. Raise what the file system raises."""
    new = not path.exists()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE), "a", encoding="utf-8") as file:  # noqa: PTH123 - the mode from the start
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if new:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Bring a new name in ``folder`` to the disk, where the system lets folders be opened."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
