"""What a long fit has done already, on disk and in words."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmrec.data.files import atomic_folder, save_hashes
from llmrec.data.json_values import require_hashes
from llmrec.data.stored import Stored
from llmrec.data.versions import __version__
from llmrec.errors import ModelLoadError


class FitStore:
    """Stores what was trained, by what it was trained on, so that a killed fit goes on from there.

    Parameters
    ----------
    folder
        Where to; None: nothing is stored.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, name: str, key: Mapping[str, Any], build: Callable[[], Stored]) -> Stored:
        """Give what is stored under a name and key, else build and store it.

        The key is plain values; the version of this package is added to it. What cannot be read is
        built again.
        """
        if self.folder is None:
            return build()
        text = json.dumps({"version": __version__, **key}, sort_keys=True)
        folder = self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        if folder.is_dir():
            try:
                require_hashes(folder)
                return Stored.load(folder)
            except (ModelLoadError, OSError, ValueError):
                folder.rename(folder.with_name(f".{folder.name}.unreadable-{time.time_ns()}"))
        built = build()
        with atomic_folder(folder) as partial:
            built.save(partial)
            save_hashes(partial)
        return built


class FitProgress:
    """Says which member is fitted, and how long the rest may take.

    Parameters
    ----------
    show
        Is given a line for every member that begins.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show, self._start = show, time.perf_counter()
        self._total, self._done, self._current = 0.0, 0.0, 0.0

    def plan(self, total: float) -> None:
        """Set the sum of the costs of all members to come, in any unit."""
        self._total = self._done + self._current + total

    def begin(self, name: str, cost: float = 1.0) -> None:
        """Begin a member: the one before is done."""
        self._done += self._current
        self._current = cost
        self._total = max(self._total, self._done + cost)
        line = f"{name} ..."
        if self._done:
            left = self.seconds * (self._total - self._done) / self._done
            line += f" {self._done / self._total:.0%} done, about {format_seconds(left)} left"
        self._show(line)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start


def format_seconds(seconds: float) -> str:
    """Give "40 s", "5 min" or "2 h 10 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
