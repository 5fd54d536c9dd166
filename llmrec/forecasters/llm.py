"""The language model as a forecaster: the prior counts, the model reads, calibration decides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from llmrec.contracts import FloatArray, Forecast, Forecaster, Source
from llmrec.data.fitted import Fitted
from llmrec.data.periods import History, Window, target_counts
from llmrec.errors import DataError
from llmrec.forecasters.calibration import MIN_WINDOWS, Calibration, fit_calibration
from llmrec.forecasters.mixing import weights_on
from llmrec.forecasters.spread import fit_spread, forecasts_of
from llmrec.language.adapters import AdapterAbout, adapter_hash
from llmrec.language.codec import Codec
from llmrec.language.model import LanguageModel
from llmrec.language.reading import NameReadout, centered


class LLMForecaster:
    """Forecasts by reading (one forward pass) or by generating (the model writes the numbers).

    Parameters
    ----------
    model, codec
        The language model, and the text formats it reads and writes.
    prior
        The numeric forecaster that counts; the reading moves its weights.
    calibration
        How far to trust the reading; None: not at all, and the source says so.
    weights
        "read": q = softmax(log prior + a z + b). "generate": the model writes ``samples`` lines,
        their mean is mixed into the prior with weight ``pool``.
    uncalibrated
        Why there is no calibration, for the source.
    """

    def __init__(
        self,
        model: LanguageModel,
        codec: Codec,
        prior: Forecaster,
        calibration: Calibration | None = None,
        *,
        weights: Literal["read", "generate"] = "read",
        pool: float = 0.1,
        samples: int = 4,
        uncalibrated: str = "no calibration was fitted",
        seed: int = 0,
    ) -> None:
        self.model, self.codec, self.prior = model, codec, prior
        self.calibration, self.weights = calibration, weights
        self.pool, self.samples, self.seed = pool, samples, seed
        self.uncalibrated = uncalibrated
        self.fitted: Fitted | None = None
        self._readout = NameReadout(codec.labels, model.encode)
        described = model.adapter and AdapterAbout.find(Path(model.adapter))
        self._adapter_id = adapter_hash(Path(model.adapter)) if described else model.adapter
        self._prompt_id = f"{codec.template}:{_short_hash(''.join(codec.labels))}"

    def read(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) scores read in one forward pass, each row centred on 0."""
        prompts = [self.codec.prompt(history) for history in histories]
        return centered(self.model.read(prompts, self._readout))

    def fit(self, windows: Sequence[Window], *, scores: FloatArray | None = None) -> Calibration:
        """Fit the calibration on validation windows, adopt it, and give it back.

        ``scores`` are the readings of the windows' histories, where they are already at hand.
        """
        if len(windows) < MIN_WINDOWS:
            raise DataError(
                f"{len(windows)} validation windows are too few to calibrate on; at least "
                f"{MIN_WINDOWS} are needed. Without, forecasts fall back to counting."
            )
        histories = [window.history for window in windows]
        targets = target_counts(windows)
        prior = weights_on(self.prior, windows)
        z = self.read(histories) if scores is None else scores
        fitted = fit_calibration(prior, z, targets, seed=self.seed)
        self.fitted = Fitted.on(windows).joined(getattr(self.prior, "fitted", None))
        self.calibration = replace(
            fitted,
            spread=fit_spread(histories, fitted.apply(prior, z), targets),
            model=self.model.fingerprint,
            categories=self.codec.categories,
        )
        return self.calibration

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        prior = self.prior.forecast(histories)
        generated = self.weights == "generate"
        return (self._generated if generated else self._read)(histories, prior)

    def _read(self, histories: Sequence[History], prior: Sequence[Forecast]) -> list[Forecast]:
        calibration = self.calibration
        if calibration is None:
            return [replace(f, source=self._source("fallback", self.uncalibrated)) for f in prior]
        weights = np.stack([f.category_weights for f in prior])
        scores = self.read(histories) if calibration.trusted else np.zeros_like(weights)
        updated = calibration.apply(weights, scores)
        if calibration.trusted:
            source = self._source("llm", f"reading trusted with a = {calibration.a:.3g}")
        else:
            mean, low, _ = calibration.gain
            source = self._source(
                "fallback",
                f"a = 0: on {calibration.n} validation windows reading gained {mean:+.4f} nats an "
                f"event, lower bound {low:+.4f}",
            )
        found = forecasts_of(source, histories, updated, calibration.spread)
        unread = self._source("fallback", "there is no event to read")
        return [
            beside(forecast, counted.source)
            if history.n_events
            else replace(counted, source=unread)
            for history, forecast, counted in zip(histories, found, prior, strict=True)
        ]

    def _generated(self, histories: Sequence[History], prior: Sequence[Forecast]) -> list[Forecast]:
        prompts = [self.codec.request(history) for history in histories]
        written: list[list[FloatArray]] = [[] for _ in prompts]
        for sample in range(self.samples):
            lines = self.model.generate(
                prompts,
                constrain=self.codec.grammar(),
                temperature=1.0,
                seed=self.seed + sample,
            )
            for line, rest, found in zip(lines, prior, written, strict=True):
                parsed = self.codec.parse(line.text, rest=rest.category_weights)
                found.append(parsed.category_weights)
        source = self._source("llm", f"{self.samples} written lines, mixed in with {self.pool:g}")
        return [
            replace(
                counted,
                category_weights=(1 - self.pool) * counted.category_weights
                + self.pool * np.mean(found, axis=0),
                source=source,
            )
            for counted, found in zip(prior, written, strict=True)
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


def beside(forecast: Forecast, prior: Source) -> Forecast:
    """Say of a forecast what moved its prior, where that was a language model too."""
    if prior.how != "llm":
        return forecast
    why = f"{forecast.source.why}; {prior.why}"
    return replace(forecast, source=replace(forecast.source, how="llm", why=why))


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
