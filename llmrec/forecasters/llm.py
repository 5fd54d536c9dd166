"""The language model as a forecaster: by category scores, generated lines or expected titles."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.data.counts import row_shares, target_counts
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.windows import MIN_CALIBRATION_WINDOWS
from llmrec.errors import DataError
from llmrec.forecast import Forecast, Forecaster, Source
from llmrec.forecasters.calibration import (
    Calibration,
    center_rows,
    fit_calibration,
    fit_interpolation,
    interpolate,
    make_forecasts,
)
from llmrec.forecasters.dispersion import fit_dispersion
from llmrec.forecasters.precomputed import out_of_sample_weights
from llmrec.language.adapters import AdapterMetadata, adapter_hash
from llmrec.language.codec import Codec
from llmrec.language.heads import Verbalizer
from llmrec.language.model import LanguageModel
from llmrec.metrics import bootstrap_interval, log_loss
from llmrec.types import FloatArray


class LLMForecaster:
    """Forecasts by category scores (one forward pass) or by generated lines.

    Parameters
    ----------
    model, codec
        The language model, and the format of its prompts and lines.
    prior
        The numeric forecaster whose weights are adjusted.
    calibration
        Weight of the category scores; None: the prior is given alone, and the source records it.
    mode
        "score": q = softmax(log prior + a z + b), z the category scores. "generate": the mean of
        ``samples`` generated lines is mixed into the prior with ``generation_weight``.
    fallback_reason
        Why there is no calibration, for the source.
    """

    def __init__(
        self,
        model: LanguageModel,
        codec: Codec,
        prior: Forecaster,
        calibration: Calibration | None = None,
        *,
        mode: Literal["score", "generate"] = "score",
        generation_weight: float = 0.1,
        samples: int = 4,
        fallback_reason: str = "no calibration was fitted",
        seed: int = 0,
    ) -> None:
        self.model, self.codec, self.prior = model, codec, prior
        self.calibration, self.mode = calibration, mode
        self.generation_weight, self.samples, self.seed = generation_weight, samples, seed
        self.fallback_reason = fallback_reason
        self.fitted: TrainingSpan | None = None
        self._verbalizer = Verbalizer(codec.labels, model.encode)
        metadata = model.adapter and (
            AdapterMetadata.load_if_present(Path(model.adapter), verify=False)
        )
        self._adapter_id = adapter_hash(Path(model.adapter)) if metadata else model.adapter
        self._prompt_id = f"{codec.template}:{_short_hash(''.join(codec.labels))}"

    def category_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) scores from one forward pass, each row centred on 0."""
        prompts = [self.codec.prompt(history) for history in histories]
        return center_rows(self.model.score_categories(prompts, self._verbalizer))

    def fit(self, windows: Sequence[Window], *, scores: FloatArray | None = None) -> Calibration:
        """Fit the calibration on validation windows, use it from now on, and return it.

        ``scores`` are the category scores of the windows' histories, if they are known already.
        """
        if len(windows) < MIN_CALIBRATION_WINDOWS:
            raise DataError(
                f"{len(windows)} validation windows are too few to calibrate on; at least "
                f"{MIN_CALIBRATION_WINDOWS} are needed. Without, forecasts fall back to counting."
            )
        histories = [window.history for window in windows]
        targets = target_counts(windows)
        prior = out_of_sample_weights(self.prior, windows)
        z = self.category_scores(histories) if scores is None else scores
        fitted = fit_calibration(
            prior,
            z,
            targets,
            seed=self.seed,
            n_events=np.array([history.n_events for history in histories]),
            gain_before=_gain_of_titles(self.prior, prior, windows),
        )
        self.fitted = TrainingSpan.of_windows(windows).union(getattr(self.prior, "fitted", None))
        self.calibration = replace(
            fitted,
            spread=fit_dispersion(windows, fitted.apply(prior, z)),
            model=self.model.fingerprint,
            categories=self.codec.categories,
        )
        return self.calibration

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        prior = self.prior.forecast(histories)
        generated = self.mode == "generate"
        return (self._mix_generated if generated else self._calibrate)(histories, prior)

    def _calibrate(self, histories: Sequence[History], prior: Sequence[Forecast]) -> list[Forecast]:
        calibration = self.calibration
        if calibration is None:
            return [
                replace(f, source=self._source("fallback", self.fallback_reason)) for f in prior
            ]
        weights = np.stack([f.category_weights for f in prior])
        scores = (
            self.category_scores(histories) if calibration.is_trusted else np.zeros_like(weights)
        )
        updated = calibration.apply(weights, scores)
        if calibration.is_trusted:
            source = self._source("llm", f"category scores weighted by a = {calibration.a:.3g}")
        else:
            mean, low, _ = calibration.gain
            source = self._source(
                "fallback",
                f"a = 0: on {calibration.n} validation windows category scores gained "
                f"{mean:+.4f} nats an event, lower bound {low:+.4f}",
            )
        found = make_forecasts(source, histories, updated, calibration.spread)
        without_events = self._source("fallback", "there is no event to read")
        return [
            self._say_how_read(combine_sources(forecast, expected.source), history)
            if history.n_events
            else replace(expected, source=without_events)
            for history, forecast, expected in zip(histories, found, prior, strict=True)
        ]

    def _say_how_read(self, forecast: Forecast, history: History) -> Forecast:
        """Say in the source how much of the prompt was read before; in live use alone."""
        prefixes = self.model.prefixes
        reading = None if prefixes is None else prefixes.reading(history.user_id)
        if reading is None:
            return forecast
        why = f"{forecast.source.why}; {reading}"
        return replace(forecast, source=replace(forecast.source, why=why))

    def _mix_generated(
        self, histories: Sequence[History], prior: Sequence[Forecast]
    ) -> list[Forecast]:
        prompts = [self.codec.completion_prompt(history) for history in histories]
        generated: list[list[FloatArray]] = [[] for _ in prompts]
        for sample in range(self.samples):
            lines = self.model.generate(
                prompts,
                constrain=self.codec.line.grammar(),
                temperature=1.0,
                seed=self.seed + sample,
            )
            for line, expected, weights in zip(lines, prior, generated, strict=True):
                parsed = self.codec.line.parse(line.text, other_weights=expected.category_weights)
                weights.append(parsed.category_weights)
        source = self._source(
            "llm", f"{self.samples} written lines, mixed in with {self.generation_weight:g}"
        )
        return [
            replace(
                expected,
                category_weights=(1 - self.generation_weight) * expected.category_weights
                + self.generation_weight * np.mean(weights, axis=0),
                source=source,
            )
            for expected, weights in zip(prior, generated, strict=True)
        ]

    def _source(self, how: Literal["llm", "counting", "fallback"], why: str) -> Source:
        return Source(
            f"LLMForecaster({self.model.name})",
            how,
            why,
            prompt=self._prompt_id,
            adapter=self._adapter_id,
            seed=self.seed,
        )


def combine_sources(forecast: Forecast, prior: Source) -> Forecast:
    """Add the source of a forecast's prior to its own, if a language model made that too."""
    if prior.how != "llm":
        return forecast
    why = f"{forecast.source.why}; {prior.why}"
    return replace(forecast, source=replace(forecast.source, how="llm", why=why))


def _gain_of_titles(
    prior: Forecaster, weights: FloatArray, windows: Sequence[Window]
) -> FloatArray | float:
    """(n_windows,) what the titles in a prior's weights take off its loss."""
    if not isinstance(prior, TitleForecaster):
        return 0.0
    targets, bare = target_counts(windows), out_of_sample_weights(prior.prior, windows)
    gains = log_loss(bare, targets) - log_loss(weights, targets)
    return np.nan_to_num(gains)  # of targets without events


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class TitleForecaster:
    """Forecasts by the categories of the titles that a language model expects next.

    q = (1 - share) * prior + share * sum_i p(title i) * category shares of i. A person without an
    event, and a catalog without a title that has an embedding, get the prior alone.

    Parameters
    ----------
    model, codec
        A model with title embeddings, and the format of its prompts.
    prior
        The forecaster whose weights are mixed in, and whose concentration stays.
    share
        Weight of the titles, see `fit`.

    Raises
    ------
    DataError
        If the model has no title embeddings.
    """

    def __init__(
        self,
        model: LanguageModel,
        codec: Codec,
        prior: Forecaster,
        share: float = 0.0,
    ) -> None:
        if model.title_embeddings is None:
            raise DataError(f"{model.name} has no title embeddings: fine-tune it with titles.rank")
        self.model, self.codec, self.prior = model, codec, prior
        self.share = share
        self.fitted: TrainingSpan | None = None
        self._n_titles = len(model.title_embeddings.keys)
        self._cached: tuple[Catalog, FloatArray] | None = None

    def fit(self, windows: Sequence[Window]) -> TitleForecaster:
        """Choose the share of least log-loss on validation windows; return itself.

        It is 0 where the 95 % interval of what the titles gain on the prior reaches below 0.
        """
        histories, targets = [window.history for window in windows], target_counts(windows)
        prior = out_of_sample_weights(self.prior, windows)
        expected = self.title_category_weights(histories)
        self.share, _ = fit_interpolation(prior, expected, targets)
        mixed = interpolate(prior, expected, self.share)
        gains = log_loss(prior, targets) - log_loss(mixed, targets)
        if bootstrap_interval(gains)[1] <= 0:
            self.share = 0.0
        self.fitted = TrainingSpan.of_windows(windows).union(getattr(self.prior, "fitted", None))
        return self

    def title_category_weights(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) weights from the titles alone; all 0 without any."""
        found = np.zeros((len(histories), len(self.codec.labels)))
        known = [row for row, history in enumerate(histories) if history.n_events]
        if known:
            prompts = [self.codec.prompt(histories[row]) for row in known]
            weights = self.model.title_probabilities(prompts)
            found[known] = row_shares(weights @ self._title_shares(histories[known[0]].catalog))
        return found

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        prior = self.prior.forecast(histories)
        if not self.share:
            return list(prior)
        weights = np.stack([forecast.category_weights for forecast in prior])
        found = interpolate(weights, self.title_category_weights(histories), self.share)
        why = f"titles weighted by {self.share:g}"
        source = Source(f"TitleForecaster({self.model.name})", "llm", why)
        return [
            replace(forecast, category_weights=row, source=source) if history.n_events else forecast
            for history, forecast, row in zip(histories, prior, found, strict=True)
        ]

    def _title_shares(self, catalog: Catalog) -> FloatArray:
        """(n_titles, n_categories) mean category shares of the items that have a title."""
        cached = self._cached  # another thread may forecast for another catalog
        if cached is None or cached[0] is not catalog:
            titles = [self.codec.title(catalog, item) for item in range(catalog.n_items)]
            rows = self.model.title_rows(titles)
            (items,) = np.nonzero(rows >= 0)
            ones = (np.ones(len(items)), (rows[items], items))
            is_title = sparse.coo_array(ones, shape=(self._n_titles, catalog.n_items)).tocsr()
            shares = np.asarray((is_title @ catalog.category_shares).todense())
            self._cached = cached = catalog, row_shares(shares)
        return cached[1]
