"""Files and folders written whole, or not at all."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Temporary files are private; a written file gets the rights any other file would. There is no way
# to ask for the mask but to set it.
_UMASK = os.umask(0)
os.umask(_UMASK)
HASH_KEY = "hash"  # in JSON that must not change
HASHES_FILE = "hashes.json"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)


def atomic_write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary name beside ``path``, sync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mode = path.stat().st_mode & 0o7777 if path.exists() else 0o666 & ~_UMASK
        os.chmod(name, mode)
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
def atomic_folder(path: Path, keep: Collection[str] | None = None) -> Iterator[Path]:
    """Give an empty folder that gets its name, synced, once it is filled; or goes away.

    Whoever opens ``path`` finds what was there before, whole, or all that is new. Where a folder
    cannot be exchanged (a disk is mounted there, it is the current one, or nothing may be written
    beside it) its files are replaced one by one instead.

    Parameters
    ----------
    keep
        Names of what is at ``path`` and stays there; the rest of it goes away. None: nothing may
        be there when the folder is filled.
    """
    path = Path(os.path.realpath(path))
    is_inside = keep is not None and path.is_dir() and not _can_be_exchanged(path)
    stays = {*(keep or ()), ".partial"}
    partial = path / ".partial" if is_inside else path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed program left
    restore_folder(path)
    try:
        partial.mkdir(parents=True)
        yield partial
        for inside in (*partial.rglob("*"), partial):
            _sync(inside)
        if is_inside:
            _replace_files(path, partial, stays)
        elif keep is not None and path.is_dir():
            for name in keep:
                _link(path / name, partial / name)
            _take_rights(path, partial)
            _sync(partial)
            try:
                _exchange(partial, path)
            except OSError as error:  # of an image's layer, or a folder that is bound to another
                if error.errno not in (errno.EXDEV, errno.EBUSY, errno.EPERM, errno.EACCES):
                    raise
                _replace_files(path, partial, stays)
        else:
            os.replace(partial, path)
        _sync(path if is_inside else path.parent)
    except OSError as error:
        if error.filename is None:  # a full disk names no file
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def others_in(folder: Path, own: Collection[str]) -> list[str]:
    """List the names in a folder, if there is one, but for these."""
    return (
        [path.name for path in folder.iterdir() if path.name not in own] if folder.is_dir() else []
    )


def restore_folder(path: Path) -> None:
    """Give a folder its name back that a program was killed while exchanging, see `_exchange`."""
    path = Path(os.path.realpath(path))
    aside = _aside(path)
    if aside.is_dir() and not path.exists():
        os.replace(aside, path)


def file_hash(path: Path) -> str:
    """SHA-256 of a file; OSError if there is none."""
    require_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_regular(path: Path) -> None:
    """Raise OSError for what is no regular file: a pipe, for instance, may never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def save_hashes(folder: Path) -> None:
    """Write the hash of every file in a folder into one file more."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): file_hash(path) for path in files}
    atomic_write_text(folder / HASHES_FILE, json.dumps(with_values_hash(hashes), indent=1))


def with_values_hash(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give what is to be written as JSON with a hash of it, whatever the order of its keys."""
    return {**values, HASH_KEY: _values_hash(values)}


def require_values_hash(values: Mapping[str, Any]) -> None:
    """Raise ValueError if values read from JSON are not those that `with_values_hash` gave."""
    if values.get(HASH_KEY) != _values_hash(values):
        raise ValueError(f"its {HASH_KEY!r} is not that of its other values: one of them changed")


def _values_hash(values: Mapping[str, Any]) -> str:
    others = {name: value for name, value in values.items() if name != HASH_KEY}
    as_read = json.loads(json.dumps(others))  # a number as a key is a text there
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def _link(source: Path, target: Path) -> None:
    """Give a file, or all files of a folder, a second name; or copy it where that cannot be."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=_link_file)
    else:
        _link_file(source, target)


def _link_file(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # of a file system without
        shutil.copy2(source, target, follow_symlinks=False)


def _exchange(one: Path, other: Path) -> None:
    """Swap the names of two folders: at once on Linux, else with a third name in between."""
    if sys.platform == "linux":
        rename = getattr(ctypes.CDLL(None), "renameat2", None)
        names = os.fsencode(one), os.fsencode(other)
        if rename and rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return
    aside = _aside(other)
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(other, aside)
    os.replace(one, other)
    os.replace(aside, one)


def _take_rights(path: Path, new: Path) -> None:
    """Give a folder the rights of another one, and its owner where that may be done."""
    shutil.copystat(path, new)
    if hasattr(os, "chown"):
        with suppress(OSError):
            shutil.chown(new, path.stat().st_uid, path.stat().st_gid)


def _can_be_exchanged(path: Path) -> bool:
    may_write = os.access(path.parent, os.W_OK | os.X_OK)
    return may_write and not os.path.ismount(path) and not Path.cwd().is_relative_to(path)


def _replace_files(path: Path, new: Path, keep: Collection[str]) -> None:
    for one in path.iterdir():
        if one.name not in keep and (one.is_dir() or not (new / one.name).is_file()):
            _remove(one)
    for one in new.iterdir():
        os.replace(one, path / one.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def _sync(path: Path) -> None:
    """Push a file, or the names in a folder, to the disk."""
    if os.name == "nt":  # Windows syncs neither folders nor files opened for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
