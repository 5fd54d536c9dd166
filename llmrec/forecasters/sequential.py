"""Next-item nets as forecasters: what comes next, summed over categories, mixed into counting."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from llmrec.data.calendar import MILLISECOND
from llmrec.data.catalog import Catalog
from llmrec.data.counts import target_counts
from llmrec.data.files import atomic_write_bytes, atomic_write_text
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.stored import Stored
from llmrec.errors import DataError, ModelLoadError, TrainingError
from llmrec.forecast import Forecast, Source
from llmrec.forecasters.calibration import fit_interpolation, interpolate, make_forecasts
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.dispersion import DEFAULT_DISPERSION, Spread, fit_dispersion, read_spread
from llmrec.forecasters.drift import GlobalDrift
from llmrec.forecasters.next_item import NextItemScorer
from llmrec.forecasters.sequential_nets import NextItemName
from llmrec.types import FloatArray

PARAMETERS_FILE, METADATA_FILE = "sequential.safetensors", "forecaster.json"


class NextItemModel:
    """Scores the next item with a net; forecasts by summing over categories.

    q = (1 - share) * counting + share * sum_i p(next item is i) * category shares of i. All nets
    are trained by cross-entropy over items: after cornac's own loop, which draws negatives, a
    softmax of the scores is no probability.

    Parameters
    ----------
    model, steps, rate
        Of the net, see `NextItemScorer`.
    prior
        The counting mixed in; fitted on the validation windows if it is not yet.

    Attributes
    ----------
    scorer
        The net alone.
    share
        Weight of the net, in [0, 1].
    spread
        How far observed shares scatter around the forecasts.
    fitted
        The events it was fitted on; None before a fit.
    """

    def __init__(
        self,
        model: NextItemName,
        prior: GlobalDrift | None = None,
        *,
        steps: int | None = None,
        rate: float | None = None,
    ) -> None:
        self.scorer = NextItemScorer(model, steps=steps, rate=rate)
        self.prior = prior or GlobalDrift()
        self.share = 0.0
        self.spread: Spread = DEFAULT_DISPERSION
        self.fitted: TrainingSpan | None = None

    @classmethod
    def of(
        cls, scorer: NextItemScorer, prior: GlobalDrift, share: float, spread: Spread
    ) -> NextItemModel:
        """Make a forecaster of a trained net, such as one trained later, on more events.

        Raises
        ------
        TrainingError
            If the net is not fitted.
        ValueError
            If the share or the spread cannot be.
        """
        if scorer.fitted is None:
            raise TrainingError(f"{scorer.model} has no parameters yet: fit it first")
        made = cls(scorer.model, prior)
        made.scorer, made.share, made.spread = scorer, share, spread
        made._check_settings()
        span = scorer.fitted
        made.fitted = span if span.before is None else span.union(prior.fitted)
        return made

    @property
    def model(self) -> NextItemName:
        """Name of the net."""
        return self.scorer.model

    @property
    def name(self) -> str:
        """Its name in explanations."""
        return self.scorer.name

    @property
    def seed(self) -> int:
        """Seed of the last fit."""
        return self.scorer.seed

    def fit(
        self, training: Sequence[Window], validation: Sequence[Window], *, seed: int = 0
    ) -> NextItemModel:
        """Train on what lies before the validation targets; returns itself.

        The share and the spread are fitted on the validation windows, whose targets the network has
        not seen.

        Raises
        ------
        DataError
            If the windows are of several logs.
        TrainingError
            If nobody took two items, or a loss is not finite.
        """
        fitted = TrainingSpan.of_windows(training, validation)
        old, self.fitted = self.scorer, None
        self.scorer = NextItemScorer(old.model, steps=old.steps, rate=old.rate, repeat=old.repeat)
        self.prior = self.prior if self.prior.fitted else self.prior.fit(validation)
        histories = [window.history for window in validation]
        targets = target_counts(validation)
        counted = self.prior.category_weights(histories)
        span, log = _training_span(training, validation), histories[0].log
        self.scorer.fit_events(log, _training_events(span, log), span, seed=seed)
        self.fitted = fitted
        predicted = self.scorer.category_shares(histories)
        self.share, _ = fit_interpolation(counted, predicted, targets)
        weights = interpolate(counted, predicted, self.share)
        self.spread = fit_dispersion(validation, weights)
        return self

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item to be the next, in float64.

        A person without events gets the popularity in the training events.

        Raises
        ------
        TrainingError
            If not fitted.
        DataError
            If a history is of another catalog, or ends before the training events (`TrainingSpan`).
        """
        if self.scorer.fitted is None:
            raise TrainingError(f"{self.model} has no parameters yet: fit it, or load a checkpoint")
        return self.scorer.scores(histories)

    def category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) forecast shares; rows sum to 1, all > 0."""
        predicted = self.scorer.category_shares(histories)
        return interpolate(self.prior.category_weights(histories), predicted, self.share)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        source = Source(self.model, "counting", seed=self.seed)
        return make_forecasts(source, histories, self.category_weights(histories), self.spread)

    def save(self, folder: Path) -> None:
        """Write the parameters (safetensors) and all that is needed to forecast again (JSON)."""
        parameters = self.scorer.parameters()
        assert self.scorer.fitted is not None
        values = {
            "model": self.model,
            "steps": self.scorer.steps,
            "rate": self.scorer.rate,
            "repeat": self.scorer.repeat,
            "learned": self.scorer.fitted.to_dict(),
            "seed": self.seed,
            **self._settings(),
        }
        atomic_write_bytes(folder / PARAMETERS_FILE, save(parameters))
        atomic_write_text(folder / METADATA_FILE, json.dumps(values, indent=1, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path) -> NextItemModel:
        """Read what `save` wrote.

        Raises
        ------
        ModelLoadError
            If the folder is no such checkpoint, or a parameter is not finite.
        """
        try:
            values = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
            loaded = cls(values["model"])
            options = {name: values[name] for name in ("steps", "rate")}
            repeat = values.get("repeat", "allow")  # which version 0.3 did not write
            loaded.scorer = NextItemScorer(values["model"], **options, repeat=repeat)
            state = load_file(folder / PARAMETERS_FILE)
            loaded.scorer.load_parameters(state, TrainingSpan.from_dict(values["learned"]))
            loaded.scorer.seed = values["seed"]
            loaded._take_settings(values)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise ModelLoadError(f"{folder} is no next-item model: {error}") from error
        return loaded

    def stored(self) -> Stored:
        """Give what it is made again from; TrainingError if not fitted."""
        scorer = self.scorer.stored()
        assert self.fitted is not None
        settings = self._settings() | {"fitted": self.fitted.time_only().to_dict()}
        return Stored(type(self).__name__, settings, parts={"scorer": scorer})

    @classmethod
    def from_stored(cls, stored: Stored, catalog: Catalog) -> NextItemModel:
        """Make it from what `stored` gave; ``catalog`` is that of the fit.

        Raises
        ------
        ModelLoadError
            If a value cannot be, or the net is none.
        """
        try:
            if stored.kind != cls.__name__:
                raise ValueError(f"it is a {stored.kind!r}")
            scorer = NextItemScorer.from_stored(stored.parts["scorer"], catalog)
            loaded = cls(scorer.model)
            loaded.scorer = scorer
            loaded._take_settings(stored.values)
        except ModelLoadError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise ModelLoadError(f"what is stored is no next-item model: {error}") from error
        return loaded

    def _settings(self) -> dict[str, Any]:
        """Plain values of what lies around the net."""
        assert self.fitted is not None
        return {
            "share": self.share,
            "spread": self.spread,
            "fitted": self.fitted.to_dict(),
            "prior": [self.prior.power, self.prior.trend, self.prior.spread],
            "counting": self.prior.prior.to_dict(),
        }

    def _take_settings(self, values: Mapping[str, Any]) -> None:
        """Take over what `_settings` gave; ValueError if a value cannot be."""
        power, trend, spread = values["prior"]
        counting = DecayedDirichlet(**values["counting"])
        self.prior = GlobalDrift(counting, power, trend, read_spread(spread))
        self.share, self.spread = values["share"], read_spread(values["spread"])
        self._check_settings()
        self.fitted = TrainingSpan.from_dict(values["fitted"])

    def _check_settings(self) -> None:
        prior = (self.prior.power, self.prior.trend, *self.prior.spread)
        if not 0 <= self.share <= 1 or not np.isfinite((*self.spread, *prior)).all():
            raise ValueError(f"share {self.share}, spread {self.spread} or prior {prior} cannot be")


def _training_span(training: Sequence[Window], validation: Sequence[Window]) -> TrainingSpan:
    """Give the events of each person to train on.

    They reach to where the person's validation history ends, else the newest training target.
    """
    log = validation[0].history.log
    logs = {id(window.history.log): window.history.log for window in (*training, *validation)}
    if any(other.fingerprint != log.fingerprint for other in logs.values()):
        raise DataError("the windows are of several logs: cut them all from one")
    stops = log.user_offsets[:-1].copy()
    users = [window.history.user_idx for window in training]
    np.maximum.at(stops, users, [window.target.stop for window in training])
    users = [window.history.user_idx for window in validation]
    stops[users] = len(log)
    np.minimum.at(stops, users, [window.history.event_ids.stop for window in validation])
    newest, until = stops[stops > log.user_offsets[:-1]] - 1, None
    if validation[0].history.period_length.unit != "events" and len(newest):
        until = log.timestamp[newest].max() + MILLISECOND
    n_events = pd.Series(stops - log.user_offsets[:-1], index=log.user_ids)
    return TrainingSpan(until, item_ids=validation[0].history.catalog.item_ids, n_events=n_events)


def _training_events(span: TrainingSpan, log: Interactions) -> list[range]:
    """Give the log positions of each person's training events."""
    assert span.n_events is not None
    return [
        range(start, start + n)
        for start, n in zip(log.user_offsets[:-1].tolist(), span.n_events.tolist(), strict=True)
    ]
