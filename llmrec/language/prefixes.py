"""What a decoder has read of people's prompts, to be continued with what is new in them."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from llmrec.data.files import atomic_write_bytes
from llmrec.errors import DataError
from llmrec.language.forward import DecoderState, KeysAndValues
from llmrec.language.generation import StartState
from llmrec.language.pretrained import decoder_cache
from llmrec.language.tokenization import Position, Prompt

ReadState = Callable[[DecoderState], torch.Tensor]
CachePrecision = Literal["float16", "float32"]
DEFAULT_BYTES, FOLDER_BYTES = 2**30, 2**34
MAX_READINGS = 100_000  # people, of whom it is known how their last prompt was read
SUFFIX = ".prefix.safetensors"
CONTINUED = "continued"


@dataclass(frozen=True)
class Reading:
    """How a person's prompt was read.

    Attributes
    ----------
    n_positions, n_continued
        Positions of the prompt, and those among them that had been read before.
    anew
        Why more than half of it was read again; "" if it was not.
    """

    n_positions: int
    n_continued: int
    anew: str = ""

    def __str__(self) -> str:
        """In words, for the source of a forecast."""
        if self.anew:
            return f"the prompt was read anew: {self.anew}"
        return f"{self.n_continued} of {self.n_positions} positions of the prompt were read before"


@dataclass(frozen=True, eq=False)
class Prefix:
    """What a decoder has read: positions, and their keys and values in each layer."""

    positions: Sequence[Position]
    layers: KeysAndValues

    @property
    def n_bytes(self) -> int:
        """Of keys and values, nearly all that it takes."""
        return sum(one.nbytes for layer in self.layers for one in layer)


class PrefixCache:
    """Keys and values of people's newest prompts, the least recently used ones dropped.

    A prompt is read on from the longest beginning that it shares with the person's last one. With
    prompts of ticks (`forecast-v2` and later) and fixed periods (`Dataset.anchor`) that is all but
    the running tick and what came since, until the budget merges the oldest ticks: those stand in
    front, so nearly all of it is read anew then, and at each later event (`Codec.merge_step`).

    What it holds is never changed in place, so threads may share it; of two that read one person at
    once the last one's stays.

    Parameters
    ----------
    fingerprint
        Of all that keys and values depend on; files of another one are dropped.
    max_bytes
        Most bytes of keys and values in memory.
    precision
        What they are kept in; float32 keeps them as the model computes.
    folder
        Where those that have no room are written, for this user's eyes alone; None: dropped.
    max_folder_bytes
        Most bytes of those files; the oldest are deleted.
    whole
        Why all prompts are read as a whole; "" if they are not.

    Attributes
    ----------
    counts
        Prompts by why they were read anew, or `CONTINUED`.

    Raises
    ------
    DataError
        If the precision is unknown, or a limit is below 0.
    """

    def __init__(
        self,
        fingerprint: str,
        max_bytes: int = DEFAULT_BYTES,
        *,
        precision: CachePrecision = "float16",
        folder: Path | None = None,
        max_folder_bytes: int = FOLDER_BYTES,
        whole: str = "",
    ) -> None:
        if precision not in ("float16", "float32"):
            raise DataError(f"precision is {precision!r}; it should be 'float16' or 'float32'")
        if min(max_bytes, max_folder_bytes) < 0:
            raise DataError("the bytes of prefixes are at least 0")
        self.fingerprint, self.max_bytes, self.precision = fingerprint, max_bytes, precision
        self.max_folder_bytes, self.whole = max_folder_bytes, whole
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.counts: Counter[str] = Counter()
        self._held: OrderedDict[str, Prefix] = OrderedDict()
        self._readings: OrderedDict[str, Reading] = OrderedDict()
        self._n_bytes, self._n_forgotten = 0, 0
        self._lock, self._folder_lock = threading.Lock(), threading.Lock()

    @property
    def n_bytes(self) -> int:
        """Bytes of keys and values in memory."""
        return self._n_bytes

    @property
    def n_people(self) -> int:
        """People whose prefixes are in memory."""
        return len(self._held)

    def reading(self, person: str) -> Reading | None:
        """Say how a person's newest prompt was read; None: it was not, or long ago."""
        return self._readings.get(person)

    def forget(self, person: str) -> None:
        """Drop what is held of a person, in memory and in the folder."""
        with self._lock:
            self._n_forgotten += 1  # what is being read now is not stored
            self._readings.pop(person, None)
            self._remove(person)
        if self.folder is not None:
            with self._folder_lock:  # what is written just now is there to be deleted
                prefix_file(self.folder, person).unlink(missing_ok=True)

    def can_continue(self, prompts: Sequence[str], rows: Sequence[list[Position]]) -> bool:
        """Whether there are prompts to read one by one; if they are read whole, it is recorded."""
        if self.whole:
            for prompt, row in zip(prompts, rows, strict=True):
                self._record(_owner(prompt), Reading(len(row), 0, self.whole))
        return bool(prompts) and not self.whole

    def read(
        self,
        start: StartState,
        rows: Sequence[list[Position]],
        prompts: Sequence[str],
        read: ReadState,
    ) -> torch.Tensor:
        """(n_prompts, width) float32, on the CPU, of what ``read`` gives of each prompt.

        Parameters
        ----------
        start
            Makes the state of some rows.
        rows, prompts
            Positions and texts; those that are no `Prompt` of a person are read as a whole.
        """
        with torch.inference_mode():
            found = [
                self._read_one(start, row, prompt, read)
                for row, prompt in zip(rows, prompts, strict=True)
            ]
            return torch.cat(found).float().cpu()

    def _read_one(
        self, start: StartState, row: list[Position], prompt: str, read: ReadState
    ) -> torch.Tensor:
        person, n_forgotten = _owner(prompt), self._n_forgotten
        known, why = self._find(person)
        n = 0 if known is None else min(_common_length(known.positions, row), len(row) - 1)
        state = start([row], True)
        state.continue_from(() if known is None else known.layers, n, decoder_cache)
        found = read(state)
        if known is not None and 2 * n < len(row):
            why = "its beginning changed, as where its oldest events are merged"
        self._record(person, Reading(len(row), n, why))
        if person and not (isinstance(prompt, Prompt) and prompt.is_trial):
            self._store(person, Prefix(row, self._pack(state.keys_and_values)), n_forgotten)
        return found

    def _record(self, person: str, reading: Reading) -> None:
        with self._lock:
            self.counts[reading.anew or CONTINUED] += 1
            self._readings.pop(person, None)
            self._readings[person] = reading
            if len(self._readings) > MAX_READINGS:
                self._readings.popitem(last=False)

    def _find(self, person: str) -> tuple[Prefix | None, str]:
        """Give what is held of a person; or why nothing is."""
        if not person:
            return None, "nobody knows whose it is"
        with self._lock:
            if person in self._held:
                self._held.move_to_end(person)
                return self._held[person], ""
        if self.folder is None:
            return None, "nothing is held of the person"
        return self._load(prefix_file(self.folder, person), person)

    def _store(self, person: str, prefix: Prefix, n_forgotten: int) -> None:
        """Hold a prefix, unless somebody was forgotten since; those without room are written."""
        without_room = []
        with self._lock:
            if n_forgotten != self._n_forgotten:
                return
            self._remove(person)
            self._held[person] = prefix
            self._n_bytes += prefix.n_bytes
            while self._n_bytes > self.max_bytes:
                oldest = next(iter(self._held))
                without_room.append((oldest, self._remove(oldest)))
        for owner, gone in without_room:
            if self.folder is not None and gone is not None:
                with self._folder_lock:
                    if n_forgotten == self._n_forgotten:
                        self._write(self.folder, owner, gone)

    def _remove(self, person: str) -> Prefix | None:
        gone = self._held.pop(person, None)
        self._n_bytes -= 0 if gone is None else gone.n_bytes
        return gone

    def _pack(self, layers: KeysAndValues) -> KeysAndValues:
        if self.precision == "float32":
            return layers
        limit = torch.finfo(torch.float16).max  # beyond it are infinities, which spoil all scores
        return [
            (keys.clamp(-limit, limit).half(), values.clamp(-limit, limit).half())
            for keys, values in layers
        ]

    def _write(self, folder: Path, person: str, prefix: Prefix) -> None:
        """Write a prefix, and delete the oldest files beyond the folder's limit."""
        tensors = {
            f"{kind}.{place}": one.contiguous()
            for place, layer in enumerate(prefix.layers)
            for kind, one in zip(("keys", "values"), layer, strict=True)
        }
        about = {"person": person, "fingerprint": self.fingerprint}
        content = save(tensors, about | {"positions": json.dumps(prefix.positions)})
        atomic_write_bytes(prefix_file(folder, person), content)
        found = [(path.stat(), path) for path in folder.glob(f"*{SUFFIX}")]
        n_bytes = sum(stat.st_size for stat, _ in found)
        for stat, path in sorted(found, key=lambda one: one[0].st_mtime_ns):
            if n_bytes <= self.max_folder_bytes:
                break
            path.unlink(missing_ok=True)
            n_bytes -= stat.st_size

    def _load(self, path: Path, person: str) -> tuple[Prefix | None, str]:
        """Read a prefix; one of another model, or a damaged one, is deleted."""
        if not path.is_file():
            return None, "nothing is held of the person"
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                if (about["person"], about["fingerprint"]) != (person, self.fingerprint):
                    raise ValueError("of another model")
                n_layers = len(file.keys()) // 2
                layers = [
                    (file.get_tensor(f"keys.{place}"), file.get_tensor(f"values.{place}"))
                    for place in range(n_layers)
                ]
            positions = [tuple(map(tuple, one)) for one in json.loads(about["positions"])]
            if any(one.shape[2] != len(positions) for layer in layers for one in layer):
                raise ValueError("of another length")
        except (OSError, KeyError, IndexError, TypeError, ValueError, SafetensorError):
            path.unlink(missing_ok=True)
            return None, "what was written of the person is damaged, or of another model"
        return Prefix(positions, layers), ""


def prefix_file(folder: Path, person: str) -> Path:
    """Give the file of a folder that what was read of a person is written to."""
    return folder / f"{hashlib.sha256(person.encode()).hexdigest()[:32]}{SUFFIX}"


def _owner(prompt: str) -> str:
    return prompt.person if isinstance(prompt, Prompt) else ""


def _common_length(known: Sequence[Position], row: Sequence[Position]) -> int:
    """Count the positions that two prompts begin with alike."""
    pairs = enumerate(zip(known, row, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(known), len(row)))
