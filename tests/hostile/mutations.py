"""Changes of stored folders, each made by a number: the same number makes the same change."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmrec.data.files import HASH_KEY, HASHES_FILE, file_hash, save_hashes, with_values_hash
from llmrec.training.checkpoints import COMPLETE_FILE
from tests.hostile.guarded import RAN

SECRET = "outside"  # a folder beside the changed one that nothing may read by its name


@dataclass(frozen=True)
class Place:
    """A file to change, with a generator of its own and another folder of the same kind."""

    file: Path
    folder: Path
    other: Path
    rng: np.random.Generator


@dataclass(frozen=True)
class Change:
    """What was changed.

    Attributes
    ----------
    name
        Its kind and the file.
    file
        Name of the file, which an error is to say.
    """

    name: str
    file: str


class _RunsCode:
    """When unpickled, it makes a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (RAN,)


def _flip(at: Place) -> None:
    content = bytearray(at.file.read_bytes())
    for place in at.rng.integers(len(content), size=int(at.rng.integers(1, 9))):
        content[place] ^= int(at.rng.integers(1, 256))
    at.file.write_bytes(content)


def _truncate(at: Place) -> None:
    content = at.file.read_bytes()
    at.file.write_bytes(content[: int(at.rng.integers(len(content)))])


def _extend(at: Place) -> None:
    at.file.write_bytes(at.file.read_bytes() + at.rng.bytes(1 + int(at.rng.integers(5_000))))


def _empty(at: Place) -> None:
    at.file.write_bytes(b"")


def _remove(at: Place) -> None:
    at.file.unlink()


def _folder(at: Place) -> None:
    at.file.unlink()
    at.file.mkdir()


def _pipe(at: Place) -> None:
    at.file.unlink()
    os.mkfifo(at.file)


def _same(at: Place) -> Path:
    """Give the file of the other folder; some are named by what they hold."""
    path = at.other / at.file.relative_to(at.folder)
    return path if path.is_file() else sorted(at.other.rglob(f"*{at.file.suffix}"))[0]


def _link(at: Place) -> None:
    """Link to the same file of another folder, outside of this one."""
    at.file.unlink()
    at.file.symlink_to(_same(at))


def _endless(at: Place) -> None:
    at.file.unlink()
    at.file.symlink_to("/dev/zero")


def _swap(at: Place) -> None:
    shutil.copyfile(_same(at), at.file)


def _beside(at: Place) -> None:
    """Put what other libraries would run beside it: it must never be read."""
    for name in ("pytorch_model.bin", "adapter_model.bin", "optimizer.pt", "model.pkl"):
        (at.folder / name).write_bytes(pickle.dumps(_RunsCode()))
    for name in ("modeling.py", "configuration.py", "__init__.py", "sitecustomize.py"):
        (at.folder / name).write_text(f"import os\nos.mkdir({RAN!r})\n")


def _not_utf8(at: Place) -> None:
    content = at.file.read_bytes()
    place = int(at.rng.integers(len(content)))
    at.file.write_bytes(content[:place] + b"\xff\xfe\xc0" + content[place:])


def _of_json(change: Callable[[Place, dict[str, Any], str], None]) -> Callable[[Place], None]:
    """Change an object somewhere in a file of JSON, at one of its keys."""

    def act(at: Place) -> None:
        values = json.loads(at.file.read_text())
        objects = [found for found in _objects(values) if found]
        chosen = objects[int(at.rng.integers(len(objects)))]
        if at.rng.random() < 0.5:
            chosen = values
        change(at, chosen, sorted(chosen)[int(at.rng.integers(len(chosen)))])
        at.file.write_text(json.dumps(values))

    return act


def _objects(value: Any) -> list[dict[str, Any]]:
    inside = value.values() if isinstance(value, dict) else value
    nested = [one for part in inside if isinstance(part, dict | list) for one in _objects(part)]
    return [value, *nested] if isinstance(value, dict) else nested


def _set(*choices: Any) -> Callable[[Place], None]:
    def change(at: Place, values: dict[str, Any], key: str) -> None:
        values[key] = choices[int(at.rng.integers(len(choices)))]

    return _of_json(change)


def _add_key(at: Place, values: dict[str, Any], key: str) -> None:
    values["further"] = values[key]


def _rename_key(at: Place, values: dict[str, Any], key: str) -> None:
    values[f"{key}s"] = values.pop(key)


def _remove_key(at: Place, values: dict[str, Any], key: str) -> None:
    del values[key]


def _name_code(at: Place, values: dict[str, Any], key: str) -> None:
    values["auto_map"] = {"AutoModelForCausalLM": "modeling.Model", "AutoConfig": "modeling.C"}
    _beside(at)


def _duplicate_key(at: Place) -> None:
    values = json.loads(at.file.read_text())
    key = sorted(values)[int(at.rng.integers(len(values)))]
    text = json.dumps(values)
    at.file.write_text(f'{text[:-1]}, {json.dumps(key)}: "another"}}')


def _nest(at: Place) -> None:
    values = json.loads(at.file.read_text())
    key = sorted(values)[int(at.rng.integers(len(values)))]
    depth = int(at.rng.choice([40, 900, 100_000]))
    whole = json.dumps(values | {key: "HERE"})
    at.file.write_text(whole.replace('"HERE"', "[" * depth + "]" * depth, 1))


def _of_header(change: Callable[[np.random.Generator, dict[str, Any]], None]) -> Any:
    """Change what a safetensors file says of one tensor."""

    def act(at: Place) -> None:
        content = at.file.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        names = sorted(set(header) - {"__metadata__"})
        change(at.rng, header[names[int(at.rng.integers(len(names)))]])
        text = json.dumps(header).encode()
        at.file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return act


def _shape(rng: np.random.Generator, tensor: dict[str, Any]) -> None:
    shape = tensor["shape"]
    options = ([*shape, 1], [*shape[::-1], 1, 1], [2**60], [int(np.prod(shape))], [2**40, 2**40])
    tensor["shape"] = options[int(rng.integers(len(options)))]


def _dtype(rng: np.random.Generator, tensor: dict[str, Any]) -> None:
    others = {"F32": ["I32", "U32"], "F64": ["I64", "U64"], "I64": ["F64", "U64"], "I32": ["F32"]}
    tensor["dtype"] = str(rng.choice(others.get(tensor["dtype"], ["F32", "X9"])))


def _offsets(rng: np.random.Generator, tensor: dict[str, Any]) -> None:
    begin, end = tensor["data_offsets"]
    options = [[begin, 2**60], [end, begin], [2**62, 2**63], [0, 1]]
    tensor["data_offsets"] = options[int(rng.integers(len(options)))]


def _claim(at: Place) -> None:
    content = at.file.read_bytes()
    at.file.write_bytes(struct.pack("<Q", 2 ** int(at.rng.choice([26, 40, 60]))) + content[8:])


def _numbers(at: Place) -> None:
    """Set numbers of a tensor to those that are outside of any range."""
    content = bytearray(at.file.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    names = sorted(set(header) - {"__metadata__"})
    inside = [name for name in names if name.endswith(("indices", "indptr", "columns"))] or names
    tensor = header[inside[int(at.rng.integers(len(inside)))]]
    begin, end = (8 + length + offset for offset in tensor["data_offsets"])
    size = 8 if tensor["dtype"].endswith("64") else 4
    place = begin + size * int(at.rng.integers((end - begin) // size))
    content[place : place + size] = b"\xff\xff\xff\x7f\xff\xff\xff\x7f"[:size]
    at.file.write_bytes(content)


def _tree_numbers(at: Place) -> None:
    """Put another number into a line of a tree: a length, a branch, a feature or a value."""
    lines = at.file.read_text().split("\n")
    numbered = [i for i, line in enumerate(lines) if "=" in line and line[-1:].isdigit()]
    place = numbered[int(at.rng.integers(len(numbered)))]
    name, _, values = lines[place].partition("=")
    numbers = values.split(" ")
    chosen = ["-1", "0", "2147483647", "99999999999999", "-7", "1e300", "nan", ""]
    numbers[int(at.rng.integers(len(numbers)))] = chosen[int(at.rng.integers(len(chosen)))]
    lines[place] = f"{name}={' '.join(numbers)}"
    at.file.write_text(_with_tree_sizes("\n".join(lines)))


def _with_tree_sizes(text: str) -> str:
    """Let the sizes be those of the trees, so that the rest is read at all."""
    whole, _, end = text.partition("end of trees")
    head, *trees = whole.split("Tree=")
    sizes = " ".join(str(len(f"Tree={tree}".encode())) for tree in trees)
    kept = [
        f"tree_sizes={sizes}" if line.startswith("tree_sizes=") else line
        for line in head.split("\n")
    ]
    return "\n".join(kept) + "".join(f"Tree={tree}" for tree in trees) + f"end of trees{end}"


def _other_schema(at: Place) -> None:
    table = pq.read_table(at.file)
    name = table.column_names[int(at.rng.integers(table.num_columns))]
    column = table.column_names.index(name)
    options = (
        lambda: table.remove_column(column),
        lambda: table.append_column("further", table[name]),
        lambda: table.set_column(column, name, pa.nulls(len(table), table[name].type)),
        lambda: table.set_column(column, name, pa.array(np.full(len(table), np.nan))),
        lambda: table.slice(0, 0),
        lambda: pa.concat_tables([table, table]),
    )
    pq.write_table(options[int(at.rng.integers(len(options)))](), at.file)


LONG = "x" * 1_000_000
ANY: dict[str, Callable[[Place], None]] = {
    "bytes flipped": _flip,
    "truncated": _truncate,
    "extended": _extend,
    "empty": _empty,
    "missing": _remove,
    "a folder": _folder,
    "a pipe": _pipe,
    "a link out": _link,
    "a link to an endless file": _endless,
    "of another": _swap,
    "code beside": _beside,
}
BY_ENDING: dict[str, dict[str, Callable[[Place], None]]] = {
    ".json": {
        "key removed": _of_json(_remove_key),
        "key added": _of_json(_add_key),
        "key renamed": _of_json(_rename_key),
        "key twice": _duplicate_key,
        "other type": _set(None, True, 3, 2.5, "text", [], {}, [[1]], {"a": {"b": 1}}),
        "not finite": _set(float("nan"), float("inf"), -float("inf")),
        "huge": _set(2**62, -(2**62), 10**300, 1e308, 10**30),
        "negative": _set(-1, -1e9, [-1], -0.5),
        "nested": _nest,
        "long": _set(LONG, [LONG], [1] * 300_000, {str(i): i for i in range(300_000)}),
        "a path out": _set(
            f"../{SECRET}/x", ["../../x"], f"/../{SECRET}", {f"../{SECRET}/x": ""}, "/etc/passwd"
        ),
        "code named": _of_json(_name_code),
        "no UTF-8": _not_utf8,
    },
    ".safetensors": {
        "shape": _of_header(_shape),
        "dtype": _of_header(_dtype),
        "offsets": _of_header(_offsets),
        "length claimed": _claim,
        "numbers outside": _numbers,
    },
    ".txt": {"tree numbers": _tree_numbers, "tree numbers again": _tree_numbers},
    ".parquet": {"other schema": _other_schema},
}


def change_folder(folder: Path, other: Path, number: int) -> Change:
    """Make the change of a number in a folder."""
    rng = np.random.default_rng(number)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    kinds = {
        name: [path for path in files if not ending or path.suffix == ending]
        for ending, changes in {"": ANY, **BY_ENDING}.items()
        for name in changes
    }
    kinds["tree numbers"] = kinds["tree numbers again"] = [
        path for path in files if path.name == "trees.txt"
    ]
    usable = [name for name, found in kinds.items() if found]
    name = usable[number * 7 % len(usable)] if len(usable) % 7 else usable[number % len(usable)]
    chosen = kinds[name][int(rng.integers(len(kinds[name])))]
    act = {**ANY, **{key: one for group in BY_ENDING.values() for key, one in group.items()}}[name]
    act(Place(chosen, folder, other, rng))
    return Change(f"{chosen.relative_to(folder)}: {name}", chosen.name)


def hash_again(folder: Path) -> None:
    """Write the hashes that somebody who changed a folder on purpose would write."""
    for trees in folder.rglob("trees.txt"):
        if trees.is_file():
            digest = hashlib.sha256(trees.read_bytes()).hexdigest()
            _update(trees.with_name("stored.json"), lambda v, d=digest: _set_digest(v, d))
    for complete in folder.rglob(COMPLETE_FILE):
        if not complete.is_file() or complete.is_symlink():
            continue
        others = {path.name: path for path in complete.parent.iterdir() if path.is_file()}
        others.pop(COMPLETE_FILE, None)
        hashes = {
            name: hashlib.file_digest(path.open("rb"), "blake2b").hexdigest()
            for name, path in others.items()
        }
        complete.write_text(json.dumps(hashes))
    for name, entry in (
        *(("adapter.json", "files"), ("engine.json", "parts")),
        ("manifest.json", "files"),
    ):
        for path in folder.rglob(name):
            _update(path, lambda v, p=path, e=entry: _set_hashes(v, p.parent, e))
    for path in folder.rglob(HASHES_FILE):
        if path.is_file():
            path.unlink()
            save_hashes(path.parent)


def _update(path: Path, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
    if path.is_symlink() or not path.is_file():
        return
    try:
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    except (ValueError, TypeError, AttributeError, KeyError, OSError, RecursionError):
        return  # what was changed there is its form


def _set_digest(values: dict[str, Any], digest: str) -> Mapping[str, Any]:
    values["values"]["trees"] = digest
    return values


def _set_hashes(values: dict[str, Any], folder: Path, entry: str) -> Mapping[str, Any]:
    hashes = {
        name: file_hash(folder / name) if (folder / name).is_file() else ""
        for name in values[entry]
    }
    values = {name: value for name, value in values.items() if name != HASH_KEY}
    return with_values_hash(values | {entry: hashes})
