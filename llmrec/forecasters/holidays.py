"""Forecasts adjusted for holidays, as a language model knows them and a young log does not.

The model gives how much likelier a category's name is after "Popular groceries for Halloween
include" than after "Popular groceries include". That difference for the period to forecast, less
the one for the periods that the prior counted, adjusts the prior.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from scipy import optimize, special

from llmrec.data.calendar import Period, boundaries_up_to
from llmrec.data.counts import normalize_rows
from llmrec.data.files import atomic_write_text
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.errors import DataError, MissingExtraError
from llmrec.forecast import Forecast, Forecaster, Source
from llmrec.forecasters.calibration import center_rows
from llmrec.forecasters.precomputed import HeldOutPredictions, out_of_sample_weights
from llmrec.language.codec import load_template
from llmrec.language.forecast_line import make_labels
from llmrec.types import FloatArray, TimeArray

if TYPE_CHECKING:
    from llmrec.language.model import LanguageModel


COUNTRY = "US"
SEASONS = ("winter", "spring", "summer", "autumn")
HOLIDAY_DECAYS = (0.0, 0.5, 0.8)
MAX_WEIGHT = 1.0  # of the scores in the forecast
MIN_PERIODS = 3  # to fit on, so that two remain when one is left out


def holidays_in(period: Period) -> tuple[str, ...]:
    """Names of the holidays whose eve lies in a period, by date, or of its season without any.

    The eve counts, since what a day needs is bought before it. The season is that of the middle.

    Raises
    ------
    MissingExtraError
        If the holidays of the calendar are not installed.
    """
    try:
        from holidays import country_holidays
    except ImportError as error:
        raise MissingExtraError("holidays need: pip install 'llmrec[seasons]'") from error
    start, end = (pd.Timestamp(time) for time in (period.start, period.end))
    first, last = (time.date() + timedelta(days=1) for time in (start, end))
    calendar = country_holidays(
        COUNTRY,
        years=range(first.year, last.year + 1),
        observed=False,
        categories=("public", "unofficial"),
    )
    days = [day for day in sorted(calendar) if first <= day < last]
    middle = start + (end - start) / 2
    season = SEASONS[middle.month % 12 // 3]
    return tuple(name for day in days for name in calendar.get_list(day)) or (season,)


class HolidayScorer:
    """Scores how much likelier a language model names each category after a holiday's name.

    Parameters
    ----------
    model
        Scores each prompt once.
    categories, noun
        (n_categories,) names in the catalog's order, and what items are called: "groceries".
    template
        Name of a file in ``prompts/`` without its ending.
    cache_file
        JSON file that stores the scores, by the model's fingerprint and the labels.

    Raises
    ------
    DataError
        If the file is there and is none that this class wrote.
    """

    def __init__(
        self,
        model: LanguageModel,
        categories: Sequence[str],
        noun: str,
        *,
        template: str = "season-v1",
        cache_file: Path | None = None,
    ) -> None:
        self.model, self.noun, self.template = model, noun, template
        self._names = [f" {label.lower()}" for label in make_labels(categories)]
        self._cache_file = cache_file
        digest = hashlib.sha256("".join(self._names).encode()).hexdigest()[:8]
        self._cache_key = f"{model.fingerprint} {digest}"
        self._cached_logprobs = (
            {} if cache_file is None else _load_cache(cache_file).get(self._cache_key, {})
        )

    def scores(self, spans: Sequence[Period]) -> FloatArray:
        """(n_spans, n_categories) nats that a period's holidays add, on average, rows centred."""
        without = self._logprobs("")
        with_holidays = [
            np.mean([self._logprobs(name) for name in holidays_in(span)], axis=0) for span in spans
        ]
        return center_rows(np.stack(with_holidays) - without)

    def _logprobs(self, holiday: str) -> FloatArray:
        """(n_categories,) log-probabilities of the categories' names after a holiday's, or ""."""
        prompt = load_template(self.template).render(noun=self.noun, occasion=holiday)
        if prompt not in self._cached_logprobs:
            logprobs = self.model.continuation_logprobs(prompt, self._names)
            self._cached_logprobs[prompt] = np.round(logprobs, 5).tolist()
            if self._cache_file is not None:
                content = _load_cache(self._cache_file) | {self._cache_key: self._cached_logprobs}
                atomic_write_text(self._cache_file, json.dumps(content, ensure_ascii=False))
        return np.array(self._cached_logprobs[prompt])


def _load_cache(path: Path) -> dict[str, dict[str, list[float]]]:
    if not path.exists():
        return {}
    try:
        content: dict[str, dict[str, list[float]]] = json.loads(path.read_text(encoding="utf-8"))
        return {key: dict(prompts) for key, prompts in content.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} holds no scores of holidays: {error}. Delete it to score them again."
        ) from error


@dataclass(frozen=True, eq=False)
class HolidayForecaster:
    """q ~ prior * exp(a * (z of the period to forecast - decayed mean of z over the past ones)).

    Periods counted in events have no calendar: there, and where the scores did not help, q is the
    prior itself, and the source says so.

    Attributes
    ----------
    a
        Calibration weight of the scores (>= 0).
    decay
        Weight of a past period relative to the next newer one, in [0, 1]; 0: the last one alone.
    gain
        What the scores took off the loss of the population mix in periods left out of the fit, in
        nats.
    n
        Periods that a was fitted on.
    """

    prior: Forecaster
    scorer: HolidayScorer
    a: float = 0.0
    decay: float = 0.0
    gain: float = 0.0
    n: int = 0
    fitted: TrainingSpan | None = None
    held_out: HeldOutPredictions | None = field(default=None, repr=False)

    def fit(self, windows: Sequence[Window]) -> HolidayForecaster:
        """Fit a and the decay on the population mixes until the newest target's end.

        A period's mix is forecast from the decayed mean of those before it, with and without the
        scores. Each period is left out once; if the scores gain nothing on those left out, a is 0.
        """
        first, span = windows[0].history, TrainingSpan.of_windows(windows)
        assert span.before is not None
        a, decay, gain, n = 0.0, 0.0, 0.0, 0
        if first.period_length.unit != "events":
            everybody = first.population
            bounds = boundaries_up_to(everybody.start, first.period_length, span.before)
            counts = everybody.category_counts(first.catalog, bounds[:-1], bounds[1:])
            z = self.scorer.scores(_to_periods(bounds))
            a, decay, gain, n = _fit_weight(normalize_rows(counts + 0.5), z)
        seen = span.union(getattr(self.prior, "fitted", None))
        fitted = replace(self, a=a, decay=decay, gain=gain, n=n, fitted=seen)
        weights = fitted.adjust(
            [window.history for window in windows], out_of_sample_weights(self.prior, windows)
        )
        return replace(fitted, held_out=HeldOutPredictions.of(windows, weights))

    def adjust(self, histories: Sequence[History], category_weights: FloatArray) -> FloatArray:
        """Adjust (n_histories, n_categories) weights for the holidays of the period to forecast."""
        if self.a == 0 or histories[0].period_length.unit == "events":
            return category_weights
        shifts: dict[np.datetime64, FloatArray] = {}
        for history in histories:
            if history.cutoff not in shifts:  # people of one cutoff share their periods
                shifts[history.cutoff] = self._shift(history)
        shift = np.stack([shifts[history.cutoff] for history in histories])
        return normalize_rows(category_weights * np.exp(self.a * shift))

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        forecasts = self.prior.forecast(histories)
        weights = self.adjust(histories, np.stack([f.category_weights for f in forecasts]))
        return [
            replace(forecast, category_weights=row, source=self._source(history, forecast.source))
            for history, forecast, row in zip(histories, forecasts, weights, strict=True)
        ]

    def _shift(self, history: History) -> FloatArray:
        """(n_categories,) z of the period to forecast less that of the history's periods."""
        bounds = np.append(history.bounds, history.period_length.shift(history.cutoff, 1))
        last: FloatArray = _contrasts(self.scorer.scores(_to_periods(bounds)), self.decay)[-1]
        return last

    def _source(self, history: History, prior: Source) -> Source:
        how: Literal["llm", "fallback"] = "fallback"
        if history.period_length.unit == "events":
            why = "periods counted in events have no calendar"
        elif self.a == 0:
            why = "a = 0: the calendar gained nothing on periods left out of the fit"
        else:
            how, why = "llm", f"the calendar weighted by a = {self.a:.3g}"
        name = f"HolidayForecaster({prior.model})"
        return replace(prior, model=name, how=how, why=why, prompt=self.scorer.template)


def _to_periods(bounds: TimeArray) -> list[Period]:
    return [Period(start, end) for start, end in pairwise(bounds)]


def _decayed_means(values: FloatArray, decay: float) -> FloatArray:
    """(n - 1, width) decayed mean of the rows before each row of (n, width) but the first."""
    ages = np.arange(len(values) - 1)[:, None] - np.arange(len(values) - 1)
    weights = np.where(ages < 0, 0.0, np.power(decay, np.maximum(ages, 0)))
    return np.asarray(normalize_rows(weights) @ values[:-1])


def _contrasts(z: FloatArray, decay: float) -> FloatArray:
    """(n_periods - 1, n_categories) z of each period but the first less that of those before."""
    return np.asarray(z[1:] - _decayed_means(z, decay))


def _fit_weight(mixes: FloatArray, z: FloatArray) -> tuple[float, float, float, int]:
    """Give a, decay, gain and n from (n_periods, n_categories) mixes and scores."""
    n = len(mixes) - 1
    if n < MIN_PERIODS:
        return 0.0, 0.0, 0.0, 0
    fits = []
    for decay in HOLIDAY_DECAYS:
        parts = _decayed_means(mixes, decay), _contrasts(z, decay), mixes[1:]
        gains = np.empty(n)
        for out in range(n):
            kept = np.arange(n) != out
            a = _best_weight(*(part[kept] for part in parts))
            left_out = [part[[out]] for part in parts]
            gains[out] = _mean_cross_entropy(0.0, *left_out) - _mean_cross_entropy(a, *left_out)
        fits.append((float(gains.mean()), _best_weight(*parts), decay))
    gain, a, decay = max(fits)
    return (a if gain > 0 else 0.0), decay, gain, n


def _mean_cross_entropy(
    a: float, counted: FloatArray, contrasts: FloatArray, mixes: FloatArray
) -> float:
    """Mean cross-entropy of (n, n_categories) mixes under counted * exp(a * contrasts), nats."""
    forecast = special.log_softmax(np.log(counted) + a * contrasts, axis=1)
    return float(-(mixes * forecast).sum(axis=1).mean())


def _best_weight(counted: FloatArray, contrasts: FloatArray, mixes: FloatArray) -> float:
    """Give the a of least loss, which is convex in it."""
    solution = optimize.minimize_scalar(
        _mean_cross_entropy,
        args=(counted, contrasts, mixes),
        bounds=(0.0, MAX_WEIGHT),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return float(solution.x)
