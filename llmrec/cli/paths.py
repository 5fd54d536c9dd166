"""Paths that commands write to, checked before the work begins."""

from __future__ import annotations

import os
from pathlib import Path

from llmrec.engine_folder import is_engine
from llmrec.engine_settings import SETTINGS_FILE
from llmrec.errors import DataError

CHART_KINDS = (".png", ".html")


def require_folder(folder: Path) -> None:
    """Refuse a folder in which nothing can be written, nor the folder made; nothing is made yet.

    Raises
    ------
    DataError
        If one of the names in it is a file, or the rights do not allow it.
    """
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        raise DataError(f"{folder} cannot be a folder: {nearest} is a file; give another path.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise DataError(f"{folder} cannot be written: no right to write in {nearest}.")


def require_engine_folder(folder: Path) -> None:
    """Refuse a folder that an engine cannot be written to: a file, or one that is another's.

    Nothing is made yet; an engine that is there will be written over.

    Raises
    ------
    DataError
        If it is a file, holds other things and no engine, or cannot be written.
    """
    require_folder(folder)
    if is_engine(str(folder)) or not folder.is_dir():
        return
    if found := sorted(path.name for path in folder.iterdir()):
        raise DataError(
            f"{folder} holds {found[0]!r} and no {SETTINGS_FILE}: it is no engine's folder. Give "
            "an empty one, a new one, or an engine to write over."
        )


def require_chart_path(path: Path) -> None:
    """Refuse a chart that is neither .png nor .html, or that cannot be written."""
    if path.suffix not in CHART_KINDS:
        raise DataError(f"a chart is written as .png or .html, not {path.suffix!r}")
    if path.is_dir():
        raise DataError(f"{path} is a folder: give the path of a file.")
    require_folder(path.parent)


def describe_os_error(error: OSError) -> str:
    """Say which file or folder could not be read or written, and why, in one line."""
    path = error.filename2 or error.filename
    if path is None:
        return str(error)
    return f"{path}: {error.strerror}. Give another path, or the rights and room it needs."
