"""Ids of people as keyed hashes, in what is written apart from their log; the key stays beside it.

Whoever has a stored forecast or a training example, and not the key, cannot tell whose it is, nor
test a guess. The log itself, the output of a batch and the events of a server keep ids.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from llmrec.data.dataset import Dataset
from llmrec.data.embedded import cache_root
from llmrec.data.ids import format_id
from llmrec.errors import DataError

KEY_VARIABLE = "LLMREC_ID_KEY"
KEY_NAME = ".llmrec-id-key"
_KEY_BYTES = 32
_KEYED_ID = re.compile(r"keyed-([0-9a-f]{8})-[0-9a-f]{32}")


@dataclass(frozen=True)
class IdKey:
    """A key of ids.

    Attributes
    ----------
    path
        Its file.
    secret
        (32,) random bytes.
    """

    path: Path
    secret: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """Eight hex digits by which it is known: they stand in each id that it has hashed."""
        return hashlib.blake2b(key=self.secret, digest_size=4, person=b"llmrec key").hexdigest()

    def hash(self, user_id: object) -> str:
        """Hash an id: "keyed-", the key's name, and 32 hex digits."""
        digest = hashlib.blake2b(
            format_id(user_id).encode(), key=self.secret, digest_size=16, person=b"llmrec user"
        )
        return f"keyed-{self.name}-{digest.hexdigest()}"


def key_of(dataset: Dataset) -> IdKey:
    """Give the key of a log's ids; it is made when it is first needed.

    It is the file that LLMREC_ID_KEY names, or else a hidden one beside the log's file, or in its
    folder. Of embedded logs, and of those that come from no file, it is in the cache folder.

    Raises
    ------
    DataError
        If the file is no key, or cannot be written.
    """
    path = _places(dataset)[0]
    try:
        if not path.exists():
            _write_key(path)
        return _read_key(path)
    except OSError as error:
        raise DataError(
            f"{path}: {error.strerror}. It holds the key that ids of people are hashed with: make "
            f"its folder writable, or let {KEY_VARIABLE} name a file that may be."
        ) from error


def known_keys(dataset: Dataset) -> list[IdKey]:
    """Give the keys that ids of a log may have been hashed with, as far as they are there.

    An engine that was loaded without its log had the one in the cache folder.

    Raises
    ------
    DataError
        If one of the files is no key, or cannot be read.
    """
    try:
        return [_read_key(path) for path in _places(dataset) if path.exists()]
    except OSError as error:
        raise DataError(f"{error.filename}: {error.strerror}. It holds the key of ids.") from error


def key_name(user_id: str) -> str:
    """Give the name of the key that an id was hashed with; "" for an id as the log writes it."""
    found = _KEYED_ID.fullmatch(user_id)
    return "" if found is None else found[1]


def ids_by_hash(user_ids: pd.Index[str], keys: Sequence[IdKey]) -> dict[str, str]:
    """Give the ids of people by their hashes with each of some keys."""
    return {key.hash(user_id): user_id for key in keys for user_id in user_ids}


def say_missing_key(name: str, dataset: Dataset) -> str:
    """Say that ids were hashed with a key, by its name, where it is missing, and the way out."""
    places = [str(path) for path in _places(dataset)]
    return (
        f"ids of people are hashed with the key {name}, and it is not in {' nor in '.join(places)}:"
        f" put it there, or let {KEY_VARIABLE} name its file."
    )


def _places(dataset: Dataset) -> list[Path]:
    """Give the files that may hold the key of a log, the one that new ids are hashed with first."""
    in_cache = cache_root() / "id-keys" / f"{quote(dataset.name, safe='')}.key"
    source = dataset.source
    if source is None:
        places = [in_cache]
    else:
        own = (
            source / KEY_NAME if source.is_dir() else source.with_name(f".{source.name}{KEY_NAME}")
        )
        places = [own, in_cache]
    given = os.environ.get(KEY_VARIABLE)
    return [Path(given).expanduser(), *places] if given else places


def _write_key(path: Path) -> None:
    """Write a new key for this user's eyes alone; of two programs at once the first one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(name, path)  # unlike a renaming it never replaces a key
    except FileExistsError:
        pass
    except OSError:  # of a file system without a second name of a file
        if not path.exists():
            os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _read_key(path: Path) -> IdKey:
    secret = path.read_bytes()
    if len(secret) != _KEY_BYTES:
        raise DataError(
            f"{path} holds {len(secret)} bytes, and a key of ids has {_KEY_BYTES}: restore it. If "
            "it is lost, remove the file: a new one is made, and hashed ids stay unknown."
        )
    return IdKey(path, secret)
