"""Arrays that were made last, so that the next call with the same key does not make them again."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock

from llmrec.types import FloatArray

MAX_BYTES, MAX_KEYS = 2**25, 64  # 32 MB in all; of one key a quarter of it
_LOCK = Lock()


class KeptArrays:
    """Arrays by what they were made of; the oldest make room for new ones.

    All are read-only: they are given out again.
    """

    def __init__(self) -> None:
        self._arrays: dict[Hashable, tuple[FloatArray, ...]] = {}

    def get(
        self, key: Hashable, make: Callable[[], tuple[FloatArray, ...]]
    ) -> tuple[FloatArray, ...]:
        """Give the arrays of a key, made now if they are not kept."""
        found = self._arrays.get(key)
        if found is None:
            found = make()
            for array in found:
                array.flags.writeable = False
            self._keep(key, found)
        return found

    def _keep(self, key: Hashable, found: tuple[FloatArray, ...]) -> None:
        if _n_bytes(found) > MAX_BYTES // 4:
            return
        with _LOCK:
            self._arrays[key] = found
            size = sum(map(_n_bytes, self._arrays.values()))
            while size > MAX_BYTES or len(self._arrays) > MAX_KEYS:
                size -= _n_bytes(self._arrays.pop(next(iter(self._arrays))))


def _n_bytes(arrays: tuple[FloatArray, ...]) -> int:
    return sum(array.nbytes for array in arrays)
