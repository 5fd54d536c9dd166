"""How many events a person's next period will have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from llmrec.data.calendar import DAY, PeriodLength
from llmrec.data.periods import History, Window
from llmrec.data.stored import Stored
from llmrec.forecasters.linear_predictor import LinearPredictor, fit_logistic
from llmrec.forecasters.stored_values import read_number, refuse_broken
from llmrec.types import FloatArray

N_POINTS = 12  # equally likely numbers of events that stand for those above 0
MAX_PERIODS = 16  # newest periods of a history that count
DECAYS = (0.5, 0.85, 1.0)  # weights of a period by its age, of three means
PRESENCE_DECAY = 0.7  # the same, of the share of periods with an event
N_FEATURES = len(DECAYS) + 6
SHRINKAGE = 1e-4  # of the slopes, per mean log-likelihood
LOG_MEANS, LOG_SIZES = (-6.0, 8.0), (-4.0, 6.0)  # within which both are kept
MAX_STEPS = 200


class EventNumbers(NamedTuple):
    """How many events there may be: none, or one of some equally likely numbers.

    ``none`` are the (n_histories,) probabilities of no event, and ``some`` the
    (n_histories, n_numbers) numbers where there is one.
    """

    none: FloatArray
    some: FloatArray


@dataclass(frozen=True, eq=False)
class NextPeriodEvents:
    """A negative binomial regression of the number of events on the sizes of earlier periods.

    Its log mean is linear in log1p of three age-weighted mean sizes, of the last period's size and
    of the periods and days since the last event, and in the age-weighted share of periods with an
    event; its log size parameter in log(mean + 1). Whether there is no event at all is a logistic
    of its own, and the numbers above it are those of the truncated distribution (NB2 and hurdle
    models: Cameron and Trivedi 2013, chapters 3 and 4).

    Attributes
    ----------
    fixed
        The number of events where periods are counted in them; else 0, and the rest is used.
    min_events
        The numbers are those of periods with this many events at least.
    mean, none
        Predictors of the log mean, and of the logit of no event.
    size
        (2,) constant and slope of the log size parameter.
    """

    fixed: int
    min_events: int
    mean: LinearPredictor
    none: LinearPredictor
    size: FloatArray

    @classmethod
    def fit(cls, windows: Sequence[Window], min_events: int = 0) -> NextPeriodEvents:
        """Fit on validation windows; ``min_events`` is how many a target had to have."""
        length = PeriodLength.parse(windows[0].history.period_length)
        features = np.stack(_features([window.history for window in windows]), axis=1)
        numbers = np.array([float(window.target.n_events) for window in windows])
        if length.unit == "events":
            unused = LinearPredictor.fit(features[:0], lambda x: np.zeros(1 + N_FEATURES))
            return cls(length.n, length.n, unused, unused, np.zeros(2))
        least = max(1, min_events)
        some = numbers >= least
        found = np.empty(0)

        def fit_mean(scaled: FloatArray) -> FloatArray:
            nonlocal found
            found = _fit_negative_binomial(scaled, numbers[some], least)
            return found[:-2]

        mean = LinearPredictor.fit(features[some], fit_mean)
        return cls(0, min_events, mean, fit_logistic(features, numbers == 0), found[-2:])

    def distribution(self, histories: Sequence[History]) -> EventNumbers:
        """Give the distribution of the number of events after each history."""
        if self.fixed:
            known = np.full((len(histories), 1), float(self.fixed))
            return EventNumbers(np.zeros(len(histories)), known)
        features = _features(histories)
        mean = np.exp(np.clip(self.mean.predict(features), *LOG_MEANS))
        size = _size(self.size, mean)
        none = special.expit(self.none.predict(features)) * (self.min_events == 0)
        least = max(1, self.min_events)
        below = np.exp(_log_below(least, mean, size))[:, None]
        quantiles = below + (1 - below) * (np.arange(N_POINTS) + 0.5) / N_POINTS
        chance = size / (size + mean)
        found = stats.nbinom.ppf(quantiles, size[:, None], chance[:, None])
        return EventNumbers(none, np.maximum(found, least))

    def stored(self) -> Stored:
        """Give the coefficients."""
        values = {"fixed": self.fixed, "min_events": self.min_events}
        arrays = {**self.mean.arrays("mean"), **self.none.arrays("none"), "size": self.size}
        return Stored("NextPeriodEvents", values, arrays)

    @classmethod
    def from_stored(cls, stored: Stored) -> NextPeriodEvents:
        """Make it again; ModelLoadError if a value is missing or cannot be."""
        with refuse_broken(stored, "NextPeriodEvents"):
            mean, none = (
                LinearPredictor.from_arrays(name, stored.arrays, N_FEATURES)
                for name in ("mean", "none")
            )
            fixed, least = (int(read_number(stored, n)) for n in ("fixed", "min_events"))
            size = stored.arrays["size"]
            if size.shape != (2,):
                raise ValueError(f"size is of shape {size.shape}, not (2,)")
            return cls(fixed, least, mean, none, size)


def _features(histories: Sequence[History]) -> list[FloatArray]:
    """Give `N_FEATURES` arrays (n_histories,) of the sizes of earlier periods."""
    sizes = np.zeros((len(histories), MAX_PERIODS))  # newest first
    known, days = np.zeros(sizes.shape, dtype=np.bool_), np.zeros(len(histories))
    for row, history in enumerate(histories):
        own = np.diff(history.offsets)[::-1][:MAX_PERIODS]
        sizes[row, : len(own)] = own
        known[row, : len(own)] = True
        days[row] = _days_since(history)
    ages = np.arange(MAX_PERIODS)
    weights = [np.where(known, decay**ages, 0.0) for decay in DECAYS]
    means = [(w * sizes).sum(axis=1) / np.maximum(w.sum(axis=1), 1e-9) for w in weights]
    by_age = np.where(known, PRESENCE_DECAY**ages, 0.0)
    presence = (by_age * (sizes > 0)).sum(axis=1) / np.maximum(by_age.sum(axis=1), 1e-9)
    is_empty = ~sizes.any(axis=1)
    since = np.where(is_empty, known.sum(axis=1), (sizes > 0).argmax(axis=1))
    return [
        *map(np.log1p, means),
        np.log1p(sizes[:, 0]),
        np.log1p(since),
        (since == 0).astype(np.float64),
        np.log(np.maximum(known.sum(axis=1), 1)),
        presence,
        np.log1p(days),
    ]


def _days_since(history: History) -> float:
    """Days from the last event to the cutoff; without one from the start of the history."""
    last = history.bounds[0]
    if history.n_events:
        last = history.log.timestamp[history.event_ids[-1]]
    return float(max(0.0, (history.cutoff - last) / DAY))


def _size(parameters: FloatArray, mean: FloatArray) -> FloatArray:
    return np.asarray(np.exp(np.clip(parameters[0] + parameters[1] * np.log1p(mean), *LOG_SIZES)))


def _log_pmf(n: FloatArray, mean: FloatArray, size: FloatArray) -> FloatArray:
    """Log probability of n events (negative binomial of a mean and a size parameter)."""
    ways = special.gammaln(n + size) - special.gammaln(size) - special.gammaln(n + 1)
    return np.asarray(ways + size * np.log(size / (size + mean)) + n * np.log(mean / (size + mean)))


def _log_below(least: int, mean: FloatArray, size: FloatArray) -> FloatArray:
    """Log probability of fewer than ``least`` events."""
    terms = [_log_pmf(np.full(mean.shape, float(n)), mean, size) for n in range(least)]
    return np.asarray(np.minimum(special.logsumexp(terms, axis=0), -1e-9))


def _fit_negative_binomial(x: FloatArray, numbers: FloatArray, least: int) -> FloatArray:
    """(1 + n_features + 2,) coefficients of the log mean, and the two of the log size.

    By maximum likelihood of (n,) numbers, each ``least`` or more. Without any they are 0.
    """
    start = np.zeros(x.shape[1] + 3)
    if not len(x):
        return start
    start[0] = np.log(numbers.mean())
    size = len(x)

    def loss(found: FloatArray) -> float:
        mean = np.exp(np.clip(found[0] + x @ found[1:-2], *LOG_MEANS))
        spread = _size(found[-2:], mean)
        below = _log_below(least, mean, spread)
        logs = _log_pmf(numbers, mean, spread) - np.log(-np.expm1(below))
        prior = SHRINKAGE * (found[1:-2] ** 2).sum() + (found[-2:] ** 2).sum() / size / 32
        return float(-logs.mean() + prior)

    options = {"maxiter": MAX_STEPS}
    return np.asarray(optimize.minimize(loss, start, method="L-BFGS-B", options=options).x)
