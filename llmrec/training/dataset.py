"""Training examples on disk: timelines with a target at the end of every tick, and a manifest."""

from __future__ import annotations

import hashlib
import json
import warnings
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec.errors import MissingExtraError

try:
    import datasets
except ImportError as error:
    raise MissingExtraError("fine-tuning needs: pip install 'llmrec[finetune]'") from error

from llmrec.data.files import (
    HASH_KEY,
    atomic_folder,
    atomic_write_text,
    file_hash,
    others_in,
    require_values_hash,
    with_values_hash,
)
from llmrec.data.json_values import (
    MAX_STORED_BYTES,
    MAX_STORED_ENTRIES,
    UNREADABLE,
    describe_error,
    read_json_object,
)
from llmrec.data.keyed_ids import IdKey, key_of
from llmrec.data.periods import Window, split_into_ticks
from llmrec.data.provenance import TrainingSpan, has_fingerprint
from llmrec.errors import DataError
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.codec import Codec
from llmrec.language.tokenization import POOL_START
from llmrec.training.example_columns import (
    make_targets,
    make_texts,
    population_shifts,
    target_titles,
)
from llmrec.training.window_checks import check_windows
from llmrec.types import FloatArray

if TYPE_CHECKING:
    from llmrec.data.dataset import Dataset
    from llmrec.data.options import ReadingOptions


MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True)
class DatasetManifest:
    """The log, prompts and targets that examples on disk were made of.

    Attributes
    ----------
    dataset, data_fingerprint, period
        The log, and the length of its periods.
    cutoff
        Latest end of a training target: nothing at or after it is in a training example.
    labels, categories, prompt, budget
        Category names in prompts and in the log, prompt version, and positions of a prompt.
    titles
        How often training targets hold each title, as it stands in prompts; none is also a label.
    counting
        Fields of the `DecayedDirichlet` that category scores are added to.
    n_timelines, n_slots
        People's timelines (a long one is cut into several), and the read positions in them.
    seed
        Of the wording of the lines.
    fitted
        What of the log was seen, see `TrainingSpan.to_dict`; validation included.
    without
        Excluded categories, see `Dataset.without_categories`.
    validated
        Whether the training windows include the validation windows.
    reading
        How the log was read, see `ReadingOptions.to_dict`.
    tokenizer
        `tokenizer_fingerprint` of the one that counted prompts; "" if they were counted in letters.
    n_forgotten
        People whose rows were removed since.
    files
        Hash of each file of the examples, by its name in their folder.
    """

    dataset: str
    data_fingerprint: str
    period: str
    cutoff: str
    labels: tuple[str, ...]
    categories: tuple[str, ...]
    titles: Mapping[str, int]
    prompt: str
    budget: int
    counting: dict[str, Any]
    n_timelines: int
    n_slots: int
    seed: int
    fitted: dict[str, Any]
    without: tuple[str, ...] = ()
    validated: bool = False
    reading: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = ""
    n_forgotten: int = 0
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Hash of all fields, and so of the examples: 16 hexadecimal digits."""
        content = json.dumps(asdict(self), sort_keys=True).encode()
        return hashlib.blake2b(content, digest_size=8).hexdigest()

    @classmethod
    def load(cls, folder: Path) -> DatasetManifest:
        """Read a folder's manifest; DataError if it has none or a broken one."""
        path = folder / MANIFEST_FILE
        try:
            values = read_json_object(path, MAX_STORED_BYTES, MAX_STORED_ENTRIES)
            if values.get("files"):  # none before version 0.5
                require_values_hash(values)
            values.pop(HASH_KEY, None)
            lists = ("labels", "categories", "without")
            return cls(**values | {name: tuple(values.get(name, ())) for name in lists})
        except UNREADABLE as error:
            raise DataError(
                f"{path} is no manifest of examples: {describe_error(error)}; run "
                "finetune/make_dataset.py"
            ) from error

    def check(self, dataset: Dataset) -> None:
        """Raise DataError if the log is not the one that the examples were made of."""
        of = (dataset.name, dataset.period) == (self.dataset, self.period)
        if not of or not has_fingerprint(dataset, self.data_fingerprint):
            raise DataError(
                f"the examples were made of {self.dataset} ({self.period}, log "
                f"{self.data_fingerprint}) and this is {dataset.name} ({dataset.period}, log "
                f"{dataset.log.fingerprint}): the data changed; run finetune/make_dataset.py again"
            )
        if changed := sorted(set(dataset.catalog.categories) ^ set(self.categories)):
            raise DataError(
                f"the examples were made of other categories ({changed[0]!r} is not in both): the "
                "data changed; run finetune/make_dataset.py again"
            )


def save_examples(
    folder: Path,
    dataset: Dataset,
    codec: Codec,
    prior: DecayedDirichlet,
    people: Sequence[Sequence[Window]],
    validation: Sequence[Window],
    *,
    seed: int = 0,
    exclude_categories: Sequence[str] = (),
    include_validation: bool = False,
    reading: ReadingOptions | None = None,
    tokenizer: str = "",
) -> DatasetManifest:
    """Write training timelines, validation windows and a manifest.

    Parameters
    ----------
    folder
        Examples in it are replaced, other files stay.
    people
        Each person's windows, oldest first: see `rolling_training_windows`.
    exclude_categories, include_validation
        What was chosen for the dataset and for the windows; the manifest records both.
    reading
        How the log was read; the manifest records it, so that it can be read so again.
    tokenizer
        See `DatasetManifest`.

    Raises
    ------
    DataError
        If there is nothing to train or to validate on, a window holds what it may not, see
        `check_windows`, or the key cannot be written that people's ids are hashed with, see
        `key_of`.
    """
    check_windows(people, [] if include_validation else validation)
    chunks = [chunk for windows in people for chunk in _split(windows, codec)]
    if not chunks or not validation:
        raise DataError(
            f"{len(chunks)} timelines and {len(validation)} validation windows: both are needed. "
            "Choose shorter periods."
        )
    options = {
        "seed": seed,
        "without": tuple(exclude_categories),
        "validated": include_validation,
        "reading": {} if reading is None else reading.to_dict(),
        "tokenizer": tokenizer,
    }
    manifest = _make_manifest(dataset, codec, prior, chunks, validation, options)
    shifts = population_shifts(_flatten(chunks), prior)
    single_windows = [[window] for window in validation]
    rest, key = (codec, prior, manifest), key_of(dataset)
    parts = {
        "train": _make_table(chunks, *rest, shifts, key),
        "validation": _make_table(single_windows, *rest, {}, key),
    }
    return write_parts(folder, parts, manifest)


def load_examples(folder: Path) -> tuple[DatasetManifest, datasets.DatasetDict]:
    """Read what `save_examples` wrote; DataError if it is incomplete or changed since."""
    manifest = DatasetManifest.load(folder)
    _check_files(folder, manifest.files)
    try:
        parts = datasets.load_from_disk(str(folder))
    except UNREADABLE as error:
        raise DataError(
            f"{folder} holds no examples: {describe_error(error)}; run finetune/make_dataset.py"
        ) from error
    return manifest, parts.with_format("numpy")


def _make_manifest(
    dataset: Dataset,
    codec: Codec,
    prior: DecayedDirichlet,
    chunks: Sequence[Sequence[Window]],
    validation: Sequence[Window],
    options: Mapping[str, Any],
) -> DatasetManifest:
    """Describe examples; ``options`` are those of `save_examples`, under the manifest's names."""
    windows = _flatten(chunks)
    return DatasetManifest(
        dataset=dataset.name,
        data_fingerprint=dataset.log.fingerprint,
        period=dataset.period,
        cutoff=str(max(window.target.period.end for window in windows)),
        labels=codec.labels,
        categories=codec.categories,
        titles=_count_titles(windows, codec),
        prompt=codec.template,
        budget=codec.budget,
        counting=prior.to_dict(),
        n_timelines=len(chunks),
        n_slots=len(windows),
        fitted=TrainingSpan.of_windows(windows, validation).to_dict(),
        **options,
    )


def _flatten(chunks: Sequence[Sequence[Window]]) -> list[Window]:
    return [window for chunk in chunks for window in chunk]


def write_parts(
    folder: Path, parts: Mapping[str, datasets.Dataset], manifest: DatasetManifest
) -> DatasetManifest:
    """Replace the examples in a folder as one, with their manifest; what else is there stays.

    The manifest gets, and is given back with, the hashes of the files.
    """
    own = {*parts, MANIFEST_FILE, "dataset_dict.json"}
    with atomic_folder(folder, keep=others_in(folder, own)) as new:
        datasets.DatasetDict(parts).save_to_disk(str(new))
        written = sorted(path for path in new.rglob("*") if path.is_file())
        files = {path.relative_to(new).as_posix(): file_hash(path) for path in written}
        manifest = replace(manifest, files=files)
        text = json.dumps(with_values_hash(asdict(manifest)), indent=1, ensure_ascii=False)
        atomic_write_text(new / MANIFEST_FILE, text)
    return manifest


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Raise DataError if a file of the examples is not the one that was written."""
    again = "run finetune/make_dataset.py again"
    if not files:
        why = "were written without hashes, so nobody can say whether they changed since"
        warnings.warn(f"the examples in {folder} {why}: {again}", stacklevel=3)
    for name, written in files.items():
        path = folder / name
        what = "changed since it was written" if path.is_file() else "is missing"
        if not path.is_file() or file_hash(path) != written:
            raise DataError(f"{path} {what}, or {MANIFEST_FILE} is that of other examples: {again}")


def _split(windows: Sequence[Window], codec: Codec) -> Iterator[Sequence[Window]]:
    """Split one person's windows, from the newest back, so that a prompt holds each part."""
    sizes = [len(split_into_ticks(window.history)[0]) for window in windows]
    stop = len(windows)
    while stop > 0:
        size = sizes[stop - 1]
        shown = codec.prompt(windows[stop - 1].history).count(POOL_START)
        # Where a prompt merges older ticks, a fifth of the others is the past of its first target.
        first = 0 if shown == size else bisect_left(sizes, size - shown * 4 // 5, hi=stop - 1)
        yield windows[first:stop]
        stop = first


def _make_table(
    chunks: Sequence[Sequence[Window]],
    codec: Codec,
    prior: DecayedDirichlet,
    manifest: DatasetManifest,
    shifts: Mapping[np.datetime64, FloatArray],
    key: IdKey,
) -> datasets.Dataset:
    """Make a table with a row for each timeline; titles become their numbers in the manifest.

    Whose it is stands there as a keyed hash, by which it is found when somebody is forgotten.
    """
    shape = datasets.Array2D((None, len(codec.labels)), "float32")
    features = datasets.Features(
        user=datasets.Value("string"),
        prompt=datasets.Value("string"),
        request=datasets.Value("string"),
        line=datasets.Value("string"),
        back=datasets.Sequence(datasets.Value("int32")),
        taken=datasets.Sequence(datasets.Sequence(datasets.Value("int32"))),
        log_prior=shape,
        shares=shape,
    )
    numbers = {title: number for number, title in enumerate(manifest.titles)}
    rows = [
        {
            "user": key.hash(chunk[-1].history.user_id),
            **make_texts(chunk, codec, prior, manifest.seed),
            **make_targets(chunk, codec, prior, numbers, shifts),
        }
        for chunk in chunks
    ]
    columns = {name: [row[name] for row in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features=features)


def _count_titles(windows: Sequence[Window], codec: Codec) -> dict[str, int]:
    """Count how often targets hold each title that is no label; sorted by title."""
    counts = Counter(title for window in windows for title in target_titles(window, codec))
    return {title: counts[title] for title in sorted(counts.keys() - set(codec.labels))}
