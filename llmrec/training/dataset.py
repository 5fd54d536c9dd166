"""Training examples on disk: timelines with a target at the end of every tick, and a manifest."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import log_softmax

from llmrec.errors import MissingExtraError

try:
    import datasets
except ImportError as error:
    raise MissingExtraError("fine-tuning needs: pip install 'llmrec[finetune]'") from error

from llmrec.data.counts import row_shares, target_counts
from llmrec.data.files import (
    HASHES_FILE,
    atomic_folder,
    atomic_write_text,
    others_in,
    require_regular,
    save_hashes,
)
from llmrec.data.json_values import (
    MAX_STORED_BYTES,
    MAX_STORED_ENTRIES,
    UNREADABLE,
    describe_error,
    read_json_object,
    require_hashes,
)
from llmrec.data.periods import Window, split_into_ticks
from llmrec.data.provenance import TrainingSpan, has_fingerprint
from llmrec.errors import DataError
from llmrec.explain.describe import target_line
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.codec import MAX_ITEMS_PER_TICK, Codec
from llmrec.language.tokenization import POOL_START
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

    @classmethod
    def load(cls, folder: Path) -> DatasetManifest:
        """Read a folder's manifest; DataError if it has none or a broken one."""
        path = folder / MANIFEST_FILE
        try:
            values = read_json_object(path, MAX_STORED_BYTES, MAX_STORED_ENTRIES)
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

    Raises
    ------
    DataError
        If there is nothing to train or to validate on.
    """
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
    }
    manifest = _make_manifest(dataset, codec, prior, chunks, validation, options)
    shifts = population_shifts(_flatten(chunks), prior)
    single_windows = [[window] for window in validation]
    parts = {
        "train": _make_table(chunks, codec, prior, manifest, shifts),
        "validation": _make_table(single_windows, codec, prior, manifest, {}),
    }
    _write_parts(folder, parts, manifest)
    return manifest


def load_examples(folder: Path) -> tuple[DatasetManifest, datasets.DatasetDict]:
    """Read what `save_examples` wrote; DataError if it is incomplete."""
    manifest = DatasetManifest.load(folder)  # written last
    try:
        if (folder / HASHES_FILE).exists():  # not before version 0.5
            require_hashes(folder)
        for path in folder.rglob("*.*"):
            if not path.is_dir():
                require_regular(path)
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


def _write_parts(
    folder: Path, parts: Mapping[str, datasets.Dataset], manifest: DatasetManifest
) -> None:
    """Replace the examples in a folder as one, with their manifest; what else is there stays."""
    own = {*parts, MANIFEST_FILE, HASHES_FILE, "dataset_dict.json"}
    with atomic_folder(folder, keep=others_in(folder, own)) as new:
        datasets.DatasetDict(parts).save_to_disk(str(new))
        text = json.dumps(asdict(manifest), indent=1, ensure_ascii=False)
        atomic_write_text(new / MANIFEST_FILE, text)
        save_hashes(new)


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
) -> datasets.Dataset:
    """Make a table with a row for each timeline; titles become their numbers in the manifest."""
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
    rows = [_make_row(chunk, codec, prior, numbers, manifest.seed, shifts) for chunk in chunks]
    columns = {name: [row[name] for row in rows] for name in features}
    return datasets.Dataset.from_dict(columns, features=features)


def _make_row(
    chunk: Sequence[Window],
    codec: Codec,
    prior: DecayedDirichlet,
    numbers: Mapping[str, int],
    seed: int,
    shifts: Mapping[np.datetime64, FloatArray],
) -> dict[str, Any]:
    history = chunk[-1].history
    log_prior = np.log(prior.category_weights([window.history for window in chunk]))
    shift = [shifts.get(window.history.cutoff, np.zeros(1)) for window in chunk]
    expected = np.exp(log_prior[-1])
    return {
        "user": history.user_id,
        "prompt": codec.prompt(history),
        "request": codec.completion_prompt(history),
        "line": target_line(codec, chunk[-1], expected, seed),
        "back": _ticks_after(chunk),
        "taken": [[numbers[t] for t in _target_titles(w, codec) if t in numbers] for w in chunk],
        "log_prior": log_softmax(log_prior + np.stack(shift), axis=1),
        "shares": row_shares(target_counts(chunk)),
    }


def _count_titles(windows: Sequence[Window], codec: Codec) -> dict[str, int]:
    """Count how often targets hold each title that is no label; sorted by title."""
    counts = Counter(title for window in windows for title in _target_titles(window, codec))
    return {title: counts[title] for title in sorted(counts.keys() - set(codec.labels))}


def _target_titles(window: Window, codec: Codec) -> list[str]:
    """Give the titles of a target's newest items, as they stand in prompts."""
    catalog = window.history.catalog
    return [codec.title(catalog, item) for item in window.target.item_idx[-MAX_ITEMS_PER_TICK:]]


def _ticks_after(chunk: Sequence[Window]) -> list[int]:
    """How many ticks of the newest history come after each window's history."""
    sizes = [len(split_into_ticks(window.history)[0]) for window in chunk]
    return [sizes[-1] - size for size in sizes]


def population_shifts(
    windows: Sequence[Window], prior: DecayedDirichlet
) -> dict[np.datetime64, FloatArray]:
    """(n_categories,) logs of the population's observed over its expected shares, by cutoff.

    A year of data holds each season once, so a model can only memorize what everybody took in a
    period. Training adds these shifts to the prior, so that scores learn what is personal. Windows
    of periods of events have no cutoff in common, and no shift.
    """
    if windows[0].history.period_length.unit == "events":
        return {}
    by_cutoff: dict[np.datetime64, list[Window]] = {}
    for window in windows:
        by_cutoff.setdefault(window.history.cutoff, []).append(window)
    shifts = {}
    for cutoff, part in by_cutoff.items():
        observed = target_counts(part)
        expected = prior.category_weights([window.history for window in part])
        expected *= observed.sum(axis=1, keepdims=True)
        shifts[cutoff] = np.log((observed.sum(axis=0) + 0.5) / (expected.sum(axis=0) + 0.5))
    return shifts
