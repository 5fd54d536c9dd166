"""The windows of a log and precomputed forecasts of them, and the rows that compare forecasters."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import COUNTING, MIXTURE, SASREC
from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_bytes
from llmrec.data.periods import History, Window
from llmrec.data.splits import sample_windows, split_windows, training_windows
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.dispersion import fit_dispersion, read_spread
from llmrec.forecasters.mixture import GatedMixture
from llmrec.forecasters.precomputed import (
    PrecomputedForecaster,
    out_of_sample_weights,
    predict_weights,
)
from llmrec.forecasters.registry import MIXTURE_EXPERTS, ForecasterRegistry
from llmrec.metrics import bootstrap_interval, log_loss
from llmrec.types import FloatArray

NUMERIC = (COUNTING, "GRU", "Transformer", "SASRec", "CellMLP")  # shown beside the mixtures
EXPERTS = {MIXTURE: MIXTURE_EXPERTS, SASREC: (*MIXTURE_EXPERTS, "SASRec")}


class Evaluator:
    """A log's validation and test windows, and forecasters of them.

    Parameters
    ----------
    dataset
        The log. Its first split is called "validation", the others are tests.
    folder
        Where the weights of what takes long to fit are stored.
    users
        Windows of each split that are evaluated (drawn at random), and that calibrations and gates
        are fitted on; None: all. Numeric forecasters are fitted on all of them in any case.
    """

    def __init__(self, dataset: Dataset, folder: Path, users: int | None = None) -> None:
        self.dataset = dataset
        self.folder = folder / f"{dataset.name}-{dataset.log.fingerprint}"
        self.all_windows = split_windows(dataset)
        self.windows = {
            split: sample_windows(windows, users) for split, windows in self.all_windows.items()
        }
        self.validation = self.windows["validation"]
        self.tests = [split for split in self.windows if split != "validation"]
        self.targets = {split: target_counts(part) for split, part in self.windows.items()}
        self.counting = DecayedDirichlet().fit(self.all_windows["validation"])
        self._precomputed: dict[str, PrecomputedForecaster] = {}

    @cached_property
    def _registry(self) -> ForecasterRegistry:
        return ForecasterRegistry(training_windows(self.dataset), self.all_windows["validation"])

    def numeric(self, name: str) -> PrecomputedForecaster:
        """Fit a numeric forecaster by name, with seed 0, or one of the two mixtures, or look it up.

        Its weights of validation windows are held out from whatever was fitted on these.
        """
        if name not in self._precomputed:
            experts = {expert: self.numeric(expert) for expert in EXPERTS.get(name, ())}
            self._precomputed[name] = (
                self.mixture(name, experts) if experts else self._fitted_numeric(name)
            )
        return self._precomputed[name]

    def _fitted_numeric(self, name: str) -> PrecomputedForecaster:
        path = self.folder / "numeric" / f"{name}.npz"
        if not path.exists():
            forecaster: Any = self._registry[name]
            weights = [out_of_sample_weights(forecaster, self.all_windows["validation"])]
            weights += [
                predict_weights(forecaster, histories_of(self.all_windows[test]))
                for test in self.tests
            ]
            content = io.BytesIO()
            np.savez(content, weights=np.concatenate(weights), spread=np.array(forecaster.spread))
            atomic_write_bytes(path, content.getvalue())
            print(f"{name}: fitted", flush=True)
        histories = histories_of([one for part in self.all_windows.values() for one in part])
        with np.load(path) as stored:
            spread = read_spread(stored["spread"].tolist())
            return PrecomputedForecaster.of(name, histories, stored["weights"], spread)

    def mixture(
        self, name: str, experts: Mapping[str, PrecomputedForecaster]
    ) -> PrecomputedForecaster:
        """Mix experts, by a gate fitted on the validation windows."""
        mixture = GatedMixture(experts).fit(self.validation)
        assert mixture.held_out is not None
        weights = {"validation": mixture.held_out.lookup(self.validation)}
        weights |= {t: mixture.category_weights(histories_of(self.windows[t])) for t in self.tests}
        return self.precompute(name, weights)

    def precompute(self, name: str, weights: Mapping[str, FloatArray]) -> PrecomputedForecaster:
        """Make a forecaster of the weights of every split; its spread is fitted on validation."""
        windows = [window for split in weights for window in self.windows[split]]
        spread = fit_dispersion(self.validation, weights["validation"])
        rows = np.concatenate(list(weights.values()))
        return PrecomputedForecaster.of(name, histories_of(windows), rows, spread)

    def weights(self, forecaster: PrecomputedForecaster, split: str) -> FloatArray:
        """(n_windows, n_categories) weights of a split's windows."""
        return predict_weights(forecaster, histories_of(self.windows[split]))

    def losses(self, forecaster: PrecomputedForecaster, split: str) -> FloatArray:
        """(n_windows,) log-loss on a split, nats per event."""
        return log_loss(self.weights(forecaster, split), self.targets[split])

    def mean_rows(self, split: str, model: str, metric: str, values: FloatArray) -> Iterator[Row]:
        """Give the mean of users' values with its interval as a row; none if nobody has a value."""
        mean, low, high = bootstrap_interval(values)
        if n := int(np.isfinite(values).sum()):
            yield self.make_row(split, model, metric, mean, n, low, high)

    def make_row(
        self,
        split: str,
        model: str,
        metric: str,
        value: float,
        n: int,
        low: float | None = None,
        high: float | None = None,
    ) -> Row:
        """Make a row of this log."""
        keys = {"dataset": self.dataset.name, "split": split, "model": model, "metric": metric}
        return keys | {"value": value, "low": low, "high": high, "n": n, "seeds": [0]}

    def loss_rows(
        self, split: str, losses: Mapping[str, FloatArray], reference: str = COUNTING
    ) -> Iterator[Row]:
        """Give rows of models' (n_users,) losses, and of what they gain on a reference."""
        for model, loss in losses.items():
            yield from self.mean_rows(split, model, "log_loss", loss)
            if model != reference:
                yield from self.mean_rows(split, model, "log_loss_gain", losses[reference] - loss)


def histories_of(windows: Sequence[Window]) -> list[History]:
    """List the windows' histories."""
    return [window.history for window in windows]
