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
"""The owner alone may read and write what devices sent."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the file at ``path`` against other processes and threads while the block runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock"), mode=PRIVATE):
        yield


def replace_text(path: Path, text: str) -> None:
    """Replace the content of the file at ``path`` with ``text``. It is on the disk when this returns.

    A crash on the way leaves either the old content or the new one. Raise what the file system raises.
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
    """Write a new file's name in ``folder`` to the disk. Do nothing where the system cannot open folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
