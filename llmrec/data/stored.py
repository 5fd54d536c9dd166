"""Fitted objects on disk: plain values as JSON, arrays as safetensors, texts as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy import sparse

from llmrec.data.files import atomic_write_bytes, atomic_write_text, require_regular
from llmrec.data.json_values import (
    MAX_DEPTH,
    MAX_STORED_BYTES,
    MAX_STORED_ENTRIES,
    UNREADABLE,
    describe_error,
    read_json_object,
)
from llmrec.errors import ModelLoadError

VALUES_FILE, ARRAYS_FILE = "stored.json", "arrays.safetensors"
_NAME = re.compile(r"[A-Za-z0-9][\w@ .-]{0,99}")  # of a part or text: it names a folder or file


@dataclass(frozen=True, eq=False)
class Stored:
    """What a fitted object is made again from.

    Attributes
    ----------
    kind
        Which class it is of, by the name that registries have for it.
    values
        What JSON holds.
    arrays
        Numbers; sparse matrices as three arrays, see `sparse_arrays`. Not finite: refused.
    texts
        Other formats that are text, such as LightGBM's, by name.
    parts
        Fitted objects that this one is made of, by name.
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Stored] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it into a folder, parts into folders inside; ValueError for a name that is none."""
        for name in (*self.texts, *self.parts):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a file")
        for name, part in self.parts.items():
            part.save(folder / name)
        for name, text in self.texts.items():
            atomic_write_text(folder / f"{name}.txt", text)
        if self.arrays:
            whole = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
            atomic_write_bytes(folder / ARRAYS_FILE, save(whole))
        found = {
            "kind": self.kind,
            "values": dict(self.values),
            "arrays": sorted(self.arrays),
            "texts": sorted(self.texts),
            "parts": sorted(self.parts),
        }
        atomic_write_text(folder / VALUES_FILE, json.dumps(found, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path, depth: int = 0) -> Stored:
        """Read what `save` wrote; ``depth`` is how many objects it is a part of.

        Raises
        ------
        ModelLoadError
            If a file is missing or broken, or a number is not finite; it names the file.
        """
        path = folder / VALUES_FILE
        try:
            found = read_json_object(path, MAX_STORED_BYTES, MAX_STORED_ENTRIES)
            if depth > MAX_DEPTH:
                raise ValueError(f"its parts are nested more than {MAX_DEPTH} deep")
            if not _NAME.fullmatch(found["kind"]) or not isinstance(found["values"], dict):
                raise ValueError("its 'kind' is no name, or its 'values' are no object")
            names = (*found["texts"], *found["parts"])
            if bad := [name for name in names if not _NAME.fullmatch(name)]:
                raise ValueError(f"{bad[0]!r} cannot name a file")
            path = folder / ARRAYS_FILE
            require_regular(path)
            arrays = load_file(path) if found["arrays"] else {}
            _check_arrays(arrays, found["arrays"])
            texts = {}
            for name in found["texts"]:
                path = folder / f"{name}.txt"
                require_regular(path)
                texts[name] = path.read_text(encoding="utf-8")
            parts = {name: cls.load(folder / name, depth + 1) for name in found["parts"]}
            return cls(found["kind"], found["values"], arrays, texts, parts)
        except ModelLoadError:
            raise
        except (*UNREADABLE, SafetensorError) as error:
            raise ModelLoadError(f"{path} cannot be read: {describe_error(error)}") from error


def sparse_arrays(name: str, matrix: Any) -> dict[str, npt.NDArray[Any]]:
    """Give the three arrays of a sparse matrix in rows, with its number of columns."""
    rows = sparse.csr_array(matrix)
    return {
        f"{name}.data": rows.data,
        f"{name}.indices": rows.indices.astype(np.int32),
        f"{name}.indptr": rows.indptr.astype(np.int64),
        f"{name}.columns": np.array([rows.shape[1]], dtype=np.int64),
    }


def sparse_matrix(name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> sparse.csr_array:
    """Make the sparse matrix of `sparse_arrays`; ValueError if the arrays are of none."""
    data, indices, indptr, columns = (
        arrays[f"{name}.{part}"] for part in ("data", "indices", "indptr", "columns")
    )
    shape = (len(indptr) - 1, int(columns[0]))
    matrix = sparse.csr_array((data, indices, indptr), shape=shape)
    matrix.check_format(full_check=True)
    return matrix


def _check_arrays(arrays: Mapping[str, npt.NDArray[Any]], names: list[str]) -> None:
    """Raise ValueError for other arrays than these, and for a number that is not finite."""
    if sorted(arrays) != names:
        raise ValueError(f"it holds {sorted(arrays)}, not {names}")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"a number of {name!r} is not finite")
