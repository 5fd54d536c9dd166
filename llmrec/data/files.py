"""Files and folders written whole, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Temporary files are private; a written file gets the rights any other file would. There is no way
# to ask for the mask but to set it.
_UMASK = os.umask(0)
os.umask(_UMASK)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary name beside ``path``, sync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_UMASK)
        os.replace(name, path)
    except BaseException as error:
        Path(name).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk names no file
            error.filename = str(path)
        raise


def atomic_write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `atomic_write_bytes` does."""
    atomic_write_bytes(path, text.encode("utf-8"))


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that gets its name, synced, once it is filled; or goes away.

    Nothing may be at ``path`` when it is filled.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed program left
    try:
        partial.mkdir(parents=True)
        yield partial
        for inside in (*partial.rglob("*"), partial):
            _sync(inside)
        os.replace(partial, path)
        _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    """Push a file, or the names in a folder, to the disk."""
    if os.name == "nt":  # Windows syncs neither folders nor files opened for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
