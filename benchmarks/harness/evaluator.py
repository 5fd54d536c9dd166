"""The windows of a log, and what forecasters said of them: fitted once, kept, then looked up."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_bytes
from llmrec.data.periods import History, Window
from llmrec.data.splits import sample_windows, split_windows, training_windows
from llmrec.errors import DataError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import Dispersion, fit_dispersion, make_forecasts
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.mixture import GatedMixture
from llmrec.forecasters.precomputed import out_of_sample_weights, predict_weights
from llmrec.forecasters.registry import MIXTURE_EXPERTS, ForecasterRegistry
from llmrec.metrics import bootstrap_interval, log_loss
from llmrec.types import FloatArray, IntArray

Row = dict[str, Any]
COUNTING, MIXTURE, SASREC = "DecayedDirichlet", "GatedMixture", "GatedMixture + SASRec"
NUMERIC = (COUNTING, "GRU", "Transformer", "SASRec", "CellMLP")  # shown beside the mixtures


@dataclass(frozen=True, eq=False)
class Stored:
    """Weights of a forecaster by the history that they are for.

    Attributes
    ----------
    places
        (n, 2) user and log position where the history ends, which tells a user's windows apart.
    weights
        (n, n_categories); of validation windows, those held out from whatever was fitted on them.
    spread
        How far what came scatters around them.
    """

    name: str
    places: IntArray
    weights: FloatArray
    spread: Dispersion

    @cached_property
    def _rows(self) -> dict[tuple[int, int], int]:
        return {(user, end): row for row, (user, end) in enumerate(self.places.tolist())}

    def of(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) weights; DataError for a history that was not asked about."""
        keys = [(history.user_idx, history.event_ids.stop) for history in histories]
        if missing := [user for user, end in keys if (user, end) not in self._rows]:
            raise DataError(f"{self.name} has no weights for {len(missing)} histories")
        return self.weights[[self._rows[key] for key in keys]]

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Give the weights as forecasts."""
        source = Source(self.name, "counting")
        return make_forecasts(source, histories, self.of(histories), self.spread)

    def save(self, path: Path) -> None:
        """Write atomically."""
        content = io.BytesIO()
        np.savez(content, places=self.places, weights=self.weights, spread=np.array(self.spread))
        atomic_write_bytes(path, content.getvalue())

    @classmethod
    def load(cls, name: str, path: Path) -> Stored:
        """Read what `save` wrote."""
        with np.load(path) as kept:
            spread = Dispersion(*kept["spread"].tolist())
            return cls(name, kept["places"], kept["weights"], spread)


class Court:
    """A log's windows of validation and tests, and forecasters of them.

    Parameters
    ----------
    folder
        Where the weights of what takes long to fit are kept.
    users
        Windows of each split that are judged (drawn at random), and that calibrations and gates are
        fitted on; None: all. The numeric family is fitted on all of them in any case.
    """

    def __init__(self, dataset: Dataset, folder: Path, users: int | None = None) -> None:
        self.dataset = dataset
        self.folder = folder / f"{dataset.name}-{dataset.log.fingerprint}"
        self.whole = split_windows(dataset)
        self.windows = {split: sample_windows(found, users) for split, found in self.whole.items()}
        self.validation = self.windows["validation"]
        self.tests = [split for split in self.windows if split != "validation"]
        self.targets = {split: target_counts(found) for split, found in self.windows.items()}
        self.counting = DecayedDirichlet().fit(self.whole["validation"])
        self._stored: dict[str, Stored] = {}

    @cached_property
    def _family(self) -> ForecasterRegistry:
        return ForecasterRegistry(training_windows(self.dataset), self.whole["validation"])

    def numeric(self, name: str) -> Stored:
        """Give the weights of one of the family, fitted with seed 0, or of its two mixtures."""
        if name not in self._stored:
            experts = {expert: self.numeric(expert) for expert in _experts(name)}
            self._stored[name] = self.mixture(name, experts) if experts else self._fitted(name)
        return self._stored[name]

    def _fitted(self, name: str) -> Stored:
        path = self.folder / "numeric" / f"{name}.npz"
        if not path.exists():
            forecaster: Any = self._family[name]
            weights = [out_of_sample_weights(forecaster, self.whole["validation"])]
            weights += [
                predict_weights(forecaster, histories(self.whole[test])) for test in self.tests
            ]
            places = _places([window for found in self.whole.values() for window in found])
            Stored(name, places, np.concatenate(weights), forecaster.spread).save(path)
            print(f"{name}: fitted", flush=True)
        return Stored.load(name, path)

    def mixture(self, name: str, experts: Mapping[str, Stored]) -> Stored:
        """Mix experts by a gate fitted on the validation windows."""
        mixture = GatedMixture(experts).fit(self.validation)
        assert mixture.held_out is not None
        weights = {"validation": mixture.held_out.lookup(self.validation)}
        weights |= {t: mixture.category_weights(histories(self.windows[t])) for t in self.tests}
        return self.stored(name, weights)

    def stored(self, name: str, weights: Mapping[str, FloatArray]) -> Stored:
        """Keep the weights of the windows of every split, with the spread fitted on validation."""
        windows = [window for split in weights for window in self.windows[split]]
        spread = fit_dispersion(
            histories(self.validation), weights["validation"], self.targets["validation"]
        )
        return Stored(name, _places(windows), np.concatenate(list(weights.values())), spread)

    def losses(self, stored: Stored, split: str) -> FloatArray:
        """(n_windows,) log-loss on a split, nats per event."""
        return log_loss(stored.of(histories(self.windows[split])), self.targets[split])

    def row(self, split: str, model: str, metric: str, values: FloatArray) -> Iterator[Row]:
        """Give the mean of users' values with its interval as a row; none if nobody has a value."""
        mean, low, high = bootstrap_interval(values)
        if n := int(np.isfinite(values).sum()):
            yield self.single(split, model, metric, mean, n, low, high)

    def single(
        self,
        split: str,
        model: str,
        metric: str,
        value: float,
        n: int,
        low: float | None = None,
        high: float | None = None,
    ) -> Row:
        """Give a row."""
        about = {"dataset": self.dataset.name, "split": split, "model": model, "metric": metric}
        return about | {"value": value, "low": low, "high": high, "n": n, "seeds": [0]}

    def compared(
        self, split: str, losses: Mapping[str, FloatArray], reference: str = COUNTING
    ) -> Iterator[Row]:
        """Give rows of models' (n_users,) losses, and of what they gain on a reference."""
        for model, loss in losses.items():
            yield from self.row(split, model, "log_loss", loss)
            if model != reference:
                yield from self.row(split, model, "log_loss_gain", losses[reference] - loss)


def histories(windows: Sequence[Window]) -> list[History]:
    """Give the windows' histories."""
    return [window.history for window in windows]


def _experts(name: str) -> tuple[str, ...]:
    return {MIXTURE: MIXTURE_EXPERTS, SASREC: (*MIXTURE_EXPERTS, "SASRec")}.get(name, ())


def _places(windows: Sequence[Window]) -> IntArray:
    places = [(window.history.user_idx, window.history.event_ids.stop) for window in windows]
    return np.array(places, dtype=np.int64).reshape(-1, 2)
