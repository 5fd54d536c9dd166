"""Small nets that correct counting cell by cell, the same for every person and category.

A net works on any number of categories of any log: it is trained once over many logs
(`finetune/pretrain_forecaster.py`). No torch is needed to use it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from llmrec.data.catalog import Catalog
from llmrec.data.stored import Stored
from llmrec.errors import ModelLoadError
from llmrec.forecasters.cell_features import N_CATEGORY, N_CELL, N_FEATURES, N_PERSON, CellFeatures
from llmrec.forecasters.stored_values import refuse_broken
from llmrec.types import FloatArray

SHIPPED = Path(__file__).parent / "pretrained"
NETS_FILE, METADATA_KEY = "nets.safetensors", "llmrec"
ALL_LOGS = "all logs"
LIMIT = 4.0  # most standard deviations that a feature counts as
SEEN_TITLES = 0.5  # share of a catalog's titles by which it is taken for that of a training log
Parameters = dict[str, FloatArray]
_SPLITS = (N_CELL, N_CELL + N_CATEGORY, N_CELL + N_CATEGORY + N_PERSON)


@dataclass(frozen=True, eq=False)
class CellNets:
    """Nets of one form, whose corrections are averaged.

    Attributes
    ----------
    mean, scale
        (N_FEATURES,) by which features are standardised.
    weights, biases
        Of each layer, the first first: (n_nets, n_inputs, n_outputs) and (n_nets, n_outputs). The
        last layer has one output: what is added to the log weight of counting.
    left_out
        The log that they were not trained on, or `ALL_LOGS`.
    """

    mean: FloatArray
    scale: FloatArray
    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray, ...]
    left_out: str = ALL_LOGS

    @property
    def n_nets(self) -> int:
        """How many nets there are."""
        return len(self.weights[0])

    def correct(self, features: CellFeatures) -> FloatArray:
        """(n, n_categories) what is added to the log weights of counting."""
        blocks = self._standardise(features)
        total = np.zeros(features.prior.shape)
        for net in range(self.n_nets):
            hidden = self._first_layer(net, blocks, features)
            for layer in range(1, len(self.weights)):
                np.maximum(hidden, 0.0, out=hidden)  # an exponential would take longest of all
                hidden = hidden @ self.weights[layer][net] + self.biases[layer][net]
            total += hidden.reshape(total.shape)
        return total / self.n_nets

    def stored(self) -> Stored:
        """Give the parameters."""
        return Stored("CellNets", {"left_out": self.left_out}, self.arrays())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Give the parameters by name, in single precision, which holds them as they are."""
        found = {"mean": self.mean, "scale": self.scale}
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            found |= {f"weight.{layer}": weight, f"bias.{layer}": bias}
        return {name: array.astype(np.float32) for name, array in found.items()}

    @classmethod
    def from_stored(cls, stored: Stored) -> CellNets:
        """Make them again; ModelLoadError if a parameter is missing or of another shape."""
        with refuse_broken(stored, "CellNets"):
            if not isinstance(left_out := stored.values["left_out"], str):
                raise ValueError(f"left_out is {left_out!r}, no name of a log")
            return cls.from_arrays(stored.arrays, left_out)

    @classmethod
    def from_arrays(cls, arrays: Any, left_out: str) -> CellNets:
        """Make them of what `arrays` gave; ValueError for another shape, KeyError for a gap."""
        n_layers = sum(name.startswith("weight.") for name in arrays)
        weights = tuple(_read(arrays, f"weight.{layer}", 3) for layer in range(n_layers))
        biases = tuple(_read(arrays, f"bias.{layer}", 2) for layer in range(n_layers))
        mean, scale = _read(arrays, "mean", 1), _read(arrays, "scale", 1)
        widths = [N_FEATURES, *(weight.shape[2] for weight in weights)]
        n_nets = len(weights[0]) if weights else 0
        shapes = [(n_nets, *pair) for pair in pairwise(widths)]
        if not n_nets or widths[-1] != 1 or [weight.shape for weight in weights] != shapes:
            found = [weight.shape for weight in weights]
            raise ValueError(f"its layers are of shapes {found}: no nets of {N_FEATURES} features")
        if [bias.shape for bias in biases] != [(n_nets, width) for width in widths[1:]]:
            raise ValueError(f"its biases are of shapes {[bias.shape for bias in biases]}")
        if mean.shape != (N_FEATURES,) or scale.shape != (N_FEATURES,) or not (scale > 0).all():
            raise ValueError(f"mean and scale are no {N_FEATURES} numbers, scale above 0")
        return cls(mean, scale, weights, biases, left_out)

    def _standardise(self, features: CellFeatures) -> tuple[FloatArray, ...]:
        """Features of cells, categories, people and the log, in standard deviations."""
        means, scales = np.split(self.mean, _SPLITS), np.split(self.scale, _SPLITS)
        blocks = (features.cells, features.categories, features.people, features.log)
        return tuple(
            np.clip((block - mean) / scale, -LIMIT, LIMIT)
            for block, mean, scale in zip(blocks, means, scales, strict=True)
        )

    def _first_layer(
        self, net: int, blocks: tuple[FloatArray, ...], features: CellFeatures
    ) -> FloatArray:
        """(n * n_categories, width) sums; what cells have in common is multiplied once."""
        of_cells, of_categories, of_people, of_log = np.split(self.weights[0][net], _SPLITS)
        cells, categories, people, log = blocks
        n, n_categories, _ = cells.shape
        hidden: FloatArray = cells.reshape(n * n_categories, -1) @ of_cells
        hidden = hidden.reshape(n, n_categories, -1)
        hidden += (categories @ of_categories)[features.cutoffs]
        hidden += (people @ of_people + log @ of_log + self.biases[0][net])[:, None]
        return hidden.reshape(n * n_categories, -1)


@dataclass(frozen=True, eq=False)
class PretrainedNets:
    """The nets of one training, and which titles its logs hold.

    Attributes
    ----------
    nets
        By the log that they were not trained on; `ALL_LOGS`: trained on all.
    titles
        Hashes of the titles of each training log.
    """

    nets: dict[str, CellNets]
    titles: dict[str, npt.NDArray[np.uint32]]

    def choose(self, catalog: Catalog) -> CellNets:
        """Give the nets that know nothing of a catalog's log: what they say of it can be judged.

        A catalog is taken for that of a training log by its titles.
        """
        own = hash_titles(catalog.titles)
        for name, known in self.titles.items():
            if np.isin(own, known).mean() > SEEN_TITLES:
                return self.nets[name]
        return self.nets[ALL_LOGS]

    @classmethod
    def load(cls, folder: Path) -> PretrainedNets:
        """Read what finetune/pretrain_forecaster.py wrote.

        Raises
        ------
        ModelLoadError
            If the file is missing or broken.
        """
        path = folder / NETS_FILE
        try:
            with safe_open(path, "numpy") as file:
                names: list[str] = json.loads(file.metadata()[METADATA_KEY])
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            groups: dict[str, dict[str, Any]] = {name: {} for name in [ALL_LOGS, *names]}
            titles = {name: arrays.pop(f"titles/{name}") for name in names}
            for key, array in arrays.items():
                if not np.isfinite(array).all():
                    raise ValueError(f"a number of {key!r} is not finite")
                name, _, parameter = key.rpartition("/")
                groups[name][parameter] = array
            nets = {name: CellNets.from_arrays(group, name) for name, group in groups.items()}
            return cls(nets, titles)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelLoadError(f"{path} holds no pretrained nets: {error!r}") from error


@lru_cache(maxsize=1)
def shipped_nets() -> PretrainedNets:
    """Give the nets that come with the package."""
    return PretrainedNets.load(SHIPPED)


def hash_titles(titles: Sequence[str]) -> npt.NDArray[np.uint32]:
    """(n,) sorted hashes of the distinct titles: their texts cannot be read from them."""
    return np.unique(np.array([zlib.crc32(text.encode()) for text in titles], dtype=np.uint32))


def _read(arrays: Any, name: str, n_dimensions: int) -> FloatArray:
    array = np.asarray(arrays[name])
    if array.dtype != np.float32 or array.ndim != n_dimensions or not np.isfinite(array).all():
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, no finite parameters")
    return array.astype(np.float64)
