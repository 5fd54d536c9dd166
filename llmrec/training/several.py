"""Several logs at once: one model and one readout for all, and each log's own labels for itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from llmrec.data.catalog import Catalog
from llmrec.data.readers import Dataset, load_dataset
from llmrec.data.synthetic import make_world
from llmrec.errors import DataError
from llmrec.evaluation.backtest import draw
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.codec import Codec
from llmrec.language.model import LanguageModel
from llmrec.language.reading import NameReadout
from llmrec.language.readout import Readout, name_embeddings
from llmrec.training.batches import Examples
from llmrec.training.config import TrainingConfig
from llmrec.training.pairs import (
    MANIFEST,
    Manifest,
    load_pairs,
    save_pairs,
    seen_and_held_out,
)
from llmrec.training.reader import Reader
from llmrec.training.run import validation

if TYPE_CHECKING:
    import datasets

MADE_UP = "synthetic-"
HELD_OUT = 400  # validation windows of a log, drawn at random


class SeveralLogs(nn.Module):
    """A `Reader` that looks at the labels of the log that a batch says it is of.

    All of the model may be trained: labels are embedded as its table is at the moment.

    Parameters
    ----------
    labels
        Of each log, by its name.
    """

    def __init__(
        self,
        model: LanguageModel,
        readout: Readout,
        labels: Mapping[str, Sequence[str]],
        *,
        line_weight: float,
    ) -> None:
        super().__init__()
        # The first names that parameters have are those they are trained by.
        self.model, self.readout = model.model, readout
        self.names = {log: NameReadout(texts, model.encode) for log, texts in labels.items()}
        self.reader = Reader(
            model.model,
            readout,
            self._embedded(next(iter(labels))),
            end=model.end,
            line_weight=line_weight,
        )

    def of(self, log: str) -> Reader:
        """Give the reader, turned to a log."""
        self.reader.names = self._embedded(log)
        return self.reader

    def forward(self, log: str, **batch: Any) -> dict[str, Tensor]:
        """Give the loss of one log's batch, see `Reader`."""
        found: dict[str, Tensor] = self.of(log)(**batch)
        return found

    def _embedded(self, log: str) -> Tensor:
        return name_embeddings(self.names[log], self.model.get_input_embeddings().weight)


class PooledExamples:
    """The batches of several logs in one random order; each says which log it is of."""

    def __init__(self, logs: Mapping[str, Examples], seed: int = 0) -> None:
        self.logs, self.seed = logs, seed

    def epoch(self, n: int) -> list[Callable[[], dict[str, Any]]]:
        """Give the batches of epoch n, each made when it is called."""
        batches = [
            partial(_named, log, batch)
            for log, examples in self.logs.items()
            for batch in examples.epoch(n)
        ]
        order = np.random.default_rng((self.seed, n)).permutation(len(batches))
        return [batches[at] for at in order]


def pooled_validation(
    several: SeveralLogs, held_out: Mapping[str, Examples]
) -> Callable[[], dict[str, float]]:
    """Give a function that validates on each log (``log_loss ml-100k``) and takes the means."""
    functions = {log: validation(several.reader, one) for log, one in held_out.items()}

    def validate() -> dict[str, float]:
        found = {}
        for log, function in functions.items():
            several.of(log)
            found[log] = function()
        each = {f"{name} {log}": v for log, values in found.items() for name, v in values.items()}
        names = next(iter(found.values()))
        return each | {
            name: float(np.mean([values[name] for values in found.values()])) for name in names
        }

    return validate


def open_log(name: str) -> Dataset:
    """Load a log; ``synthetic-3`` is a made-up one of seed 3 with labels of its own."""
    seed = name.removeprefix(MADE_UP)
    if seed == name or not seed.isdecimal():
        return load_dataset(name)
    return replace(reworded(make_world(seed=int(seed)).dataset, int(seed)), name=name)


def reworded(dataset: Dataset, seed: int) -> Dataset:
    """Name each category more closely, after one of its items: Yoga becomes Cork Yoga."""
    catalog, rng = dataset.catalog, np.random.default_rng(seed)
    members = catalog.shares.tocsc()
    names = {}
    for c, name in enumerate(catalog.categories):
        item = int(rng.choice(members.indices[members.indptr[c] : members.indptr[c + 1]]))
        names[name] = f"{catalog.titles[item].split()[0]} {name}"
    frame = pd.DataFrame(
        {
            "item_id": catalog.item_ids,
            "title": catalog.titles,
            "categories": [
                [names[name] for name in catalog.categories_of(item)]
                for item in range(catalog.n_items)
            ],
        }
    )
    return replace(dataset, catalog=Catalog.from_frame(frame))


def pairs_of(config: TrainingConfig, log: str) -> tuple[Manifest, datasets.DatasetDict]:
    """Read a log's examples from their folder in ``config.pairs``; write them first if it is new.

    They hold nothing of the newest stretch of the log, nor of the test targets. Prompts are cut by
    letters, not by a model's tokens: its vocabulary may still have to be made of them.

    Raises
    ------
    DataError
        If the folder holds examples for other prompts.
    """
    folder = Path(config.pairs) / re.sub(r"[^\w.-]+", "-", log)
    if not (folder / MANIFEST).exists():
        dataset = open_log(log)
        people, held_out = seen_and_held_out(dataset)
        codec = Codec(
            dataset.catalog.categories,
            person=dataset.person,
            noun=dataset.noun,
            template=config.template,
            budget=config.budget,
        )
        prior, validation = DecayedDirichlet().fit(held_out), draw(held_out, HELD_OUT)
        save_pairs(folder, dataset, codec, prior, people, validation, seed=config.seed)
    manifest, parts = load_pairs(folder)
    found, wanted = (manifest.prompt, manifest.budget), (config.template, config.budget)
    if found != wanted:
        raise DataError(
            f"{folder} holds examples for {found}, and the config says {wanted}: delete it, or "
            "choose another folder"
        )
    return manifest, parts


def texts_of(parts: datasets.DatasetDict) -> list[str]:
    """Give all texts of one log's examples to train on: what a vocabulary is learned from."""
    table = parts["train"]
    lines = [f" {line}" for line in table["line"]]
    return [str(text) for text in [*table["request"], *lines]]


def _named(log: str, batch: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return {"log": log, **batch()}
