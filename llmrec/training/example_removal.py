"""A person's timelines taken out of training examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import datasets
import numpy as np

from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.provenance import has_fingerprint
from llmrec.data.splits import with_catalog_of_training
from llmrec.errors import DataError
from llmrec.training.dataset import DatasetManifest, load_examples, write_parts


def count_timelines(folder: Path, ids: Collection[str]) -> tuple[int, int]:
    """Count all rows of examples, and those of a person.

    Parameters
    ----------
    ids
        The person's id and its keyed hashes: examples of earlier versions hold the id.

    Raises
    ------
    DataError
        If the folder holds no examples.
    """
    users = [str(user) for part in load_examples(folder)[1].values() for user in part["user"]]
    return len(users), sum(user in ids for user in users)


@dataclass(frozen=True, eq=False)
class RestOfExamples:
    """Examples of a folder without a person's, not written yet."""

    folder: Path
    parts: Mapping[str, datasets.Dataset]
    manifest: DatasetManifest

    def save(self) -> None:
        """Write them in the place of those with."""
        write_parts(self.folder, self.parts, self.manifest)


def examples_without(
    folder: Path, ids: Collection[str], whole: Dataset, rest: Dataset
) -> RestOfExamples:
    """Give examples without a person's rows; titles that only these had leave the manifest.

    The manifest is then of the log without the person. Priors of the other rows stay as they are:
    counts of everybody are in them.

    Parameters
    ----------
    whole, rest
        The log as it was, and without the person.

    Raises
    ------
    DataError
        If nobody else is in the examples, or the log without the person has other categories.
    """
    manifest, parts = load_examples(folder)
    kept = {
        name: [row for row in part.with_format(None) if row["user"] not in ids]
        for name, part in parts.items()
    }
    if not all(kept.values()):
        raise DataError(
            f"{folder}: without this person there is nothing to train or to validate on. Remove "
            "the folder, and run finetune/make_dataset.py on another log."
        )
    counts = Counter(title for row in kept["train"] for taken in row["taken"] for title in taken)
    left = sorted(counts)  # the numbers of titles that somebody else has
    place = {number: place for place, number in enumerate(left)}
    for row in (row for rows in kept.values() for row in rows):
        row["taken"] = [[place[n] for n in taken if n in place] for taken in row["taken"]]
    names = list(manifest.titles)
    changed = replace(
        manifest,
        titles={names[number]: counts[number] for number in left},
        n_timelines=len(kept["train"]),
        n_slots=sum(len(row["back"]) for row in kept["train"]),
        n_forgotten=manifest.n_forgotten + 1,
    )
    written = {
        name: datasets.Dataset.from_list(rows, features=parts[name].features)
        for name, rows in kept.items()
    }
    return RestOfExamples(folder, written, _of_rest(changed, whole, rest, ids))


def _of_rest(
    manifest: DatasetManifest, whole: Dataset, rest: Dataset, ids: Collection[str]
) -> DatasetManifest:
    """Give the manifest as of the log without the person, if it was of the log with them."""
    before, after = (
        with_catalog_of_training(replace(one, period=manifest.period)).without_categories(
            manifest.without
        )
        for one in (whole, rest)
    )
    if not has_fingerprint(before, manifest.data_fingerprint):
        return manifest
    if after.catalog.categories != manifest.categories:
        raise DataError(
            "the log without this person has other categories than the examples: run "
            "finetune/make_dataset.py on it, once they are removed from all else."
        )
    fitted = dict(manifest.fitted)
    if fitted.get("stops") is not None:
        fitted["stops"] = _stops_of_rest(fitted["stops"], before.log.align_to(before.catalog), ids)
    if fitted.get("log") == manifest.data_fingerprint:
        fitted["log"] = after.log.fingerprint
    return replace(manifest, data_fingerprint=after.log.fingerprint, fitted=fitted)


def _stops_of_rest(stops: list[int], log: Interactions, ids: Collection[str]) -> list[int]:
    """Give positions in a log, one a person (0: none), as they are without a person's events."""
    found, n_gone = [], 0
    sizes = np.diff(log.user_offsets).tolist()
    for user, stop, size in zip(log.user_ids, stops, sizes, strict=True):
        if user in ids:
            n_gone += size
        else:
            found.append(stop - n_gone if stop else 0)
    return found
