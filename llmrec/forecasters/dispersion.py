"""How far what people take scatters around a forecast: one concentration a person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from llmrec.beta_binomial import MAX_SHARE, MIN_SHARE, clip_concentration, fit_log_concentration
from llmrec.data.counts import events_per_share, target_events
from llmrec.data.periods import History, Window
from llmrec.forecasters.target_cells import row_blocks
from llmrec.types import FloatArray, IntArray

MIN_VARIANCE, MAX_VARIANCE = 1e-6, 2 / 3  # of concentrations of 1e6 and 0.5
N_LARGEST = 10  # categories of a forecast that a dispersion is fitted on
SAME = 1e-9  # a feature that varies less has no part in a fit
MIN_PEOPLE = 30  # on fewer the concentration is the same for everybody


class Dispersion(NamedTuple):
    """Variance of an observed share around its forecast w: w (1 - w) (latent + sampling / m).

    ``latent`` is the variance that more events would not reduce, ``sampling`` the noise of a
    period's few events: m is the mean number of events in the non-empty periods of the person's
    history (1 for an empty one). Versions before 0.5 fitted it; what they stored still holds.
    """

    latent: float = 0.02
    sampling: float = 0.0

    def concentration(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories,) Dirichlet concentrations with that variance, in 0.5..1e6."""
        variance = self.latent + self.sampling / events_per_period(histories)
        return np.asarray(1 / np.clip(variance, MIN_VARIANCE, MAX_VARIANCE) - 1)


class EventDispersion(NamedTuple):
    """Log concentration of the beta-binomial of the next period's events, by the person's history.

    constant + events L + events_squared L^2 + per_period E + per_period_squared E^2, with L the log
    number of events and E that of the mean events of a non-empty period, both less their means on
    the windows of the fit, and no further out than there.
    """

    constant: float
    events: float
    events_squared: float
    per_period: float
    per_period_squared: float
    mean_events: float
    min_events: float
    max_events: float
    mean_per_period: float
    min_per_period: float
    max_per_period: float

    def concentration(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories,) concentrations, in 0.05..1e5."""
        events, per_period = _log_sizes(histories)
        found = np.full(len(histories), self.constant)
        for value, mean, low, high, slope, curvature in (
            (events, *self[5:8], self.events, self.events_squared),
            (per_period, *self[8:11], self.per_period, self.per_period_squared),
        ):
            away = np.clip(value, low, high) - mean
            found += slope * away + curvature * away**2
        return clip_concentration(found)


Spread = Dispersion | EventDispersion
DEFAULT_DISPERSION = Dispersion()


def read_spread(values: Sequence[float]) -> Spread:
    """Make a spread of its numbers, of this version or of one before.

    Raises
    ------
    TypeError
        If they are too many.
    """
    if len(values) == len(EventDispersion._fields):
        return EventDispersion(*values)
    return Dispersion(*values)


def is_possible_spread(spread: Spread) -> bool:
    """Whether its numbers are finite, and variances not below 0."""
    if not np.isfinite(spread).all():
        return False
    return isinstance(spread, EventDispersion) or min(spread) >= 0


def fit_dispersion(
    windows: Sequence[Window],
    category_weights: FloatArray | Callable[[Sequence[History]], FloatArray],
) -> Spread:
    """Fit the concentration by beta-binomial likelihood to what people took after a forecast.

    Of each target with n events, k of each of the ten largest forecast categories are
    BetaBinomial(n, concentration * w, concentration * (1 - w)). An event of several categories
    counts for each, with the forecast share times `events_per_share`.

    Parameters
    ----------
    windows
        Targets without events are left out; without any other there is `DEFAULT_DISPERSION`.
    category_weights
        (n_windows, n_categories) weights, not fitted on these windows; or what gives those of some
        histories, where all together would be large.
    """
    rows = [row for row, window in enumerate(windows) if window.target.n_events]
    if not rows:
        return DEFAULT_DISPERSION
    shares, counts = (found[rows] for found in _largest_shares(windows, category_weights, rows))
    histories = [windows[row].history for row in rows]
    n_events = np.repeat([float(windows[row].target.n_events) for row in rows], shares.shape[1])
    sizes = np.stack(_log_sizes(histories))
    mean, low, high = sizes.mean(axis=1), sizes.min(axis=1), sizes.max(axis=1)
    events, per_period = sizes - mean[:, None]
    features = np.stack((events, events**2, per_period, per_period**2), axis=1)
    features *= (len(rows) >= MIN_PEOPLE) & np.repeat(high - low > SAME, 2)
    found = fit_log_concentration(
        np.repeat(features, shares.shape[1], axis=0),
        np.clip(shares.ravel(), MIN_SHARE, MAX_SHARE),
        counts.ravel(),
        n_events,
    )
    ranges = np.stack((mean, low, high), axis=1).ravel()
    return EventDispersion(*map(float, (*found, *ranges)))


def _largest_shares(
    windows: Sequence[Window],
    category_weights: FloatArray | Callable[[Sequence[History]], FloatArray],
    rows: Sequence[int],
) -> tuple[FloatArray, FloatArray]:
    """(n_windows, N_LARGEST) forecast shares of the largest categories, and events with each.

    ``rows`` are the windows whose histories tell `events_per_share`.
    """
    per_share = events_per_share([windows[row].history for row in rows])
    shares, counts = [], []
    for block in row_blocks(len(windows), len(per_share)):
        if callable(category_weights):
            weights = category_weights([window.history for window in windows[block]])
        else:
            weights = category_weights[block]
        weights = weights * per_share
        columns = largest_columns(weights, N_LARGEST)
        shares.append(np.take_along_axis(weights, columns, axis=1))
        counts.append(np.take_along_axis(target_events(windows[block]), columns, axis=1))
    return np.concatenate(shares), np.concatenate(counts)


def largest_columns(values: FloatArray, k: int) -> IntArray:
    """(n, k) columns of each row's largest finite values, largest first; of equal ones the first.

    All columns if they are fewer. No row is sorted whole.
    """
    k = min(k, values.shape[1])
    least = np.partition(values, -k, axis=1)[:, -k, None]
    above, tied = values > least, values == least
    missing = k - above.sum(axis=1, keepdims=True)
    chosen = above | (tied & (np.cumsum(tied, axis=1) <= missing))
    columns = np.nonzero(chosen)[1].reshape(len(values), k)
    largest = np.take_along_axis(values, columns, axis=1)
    order = np.argsort(-largest, axis=1, kind="stable")
    return np.asarray(np.take_along_axis(columns, order, axis=1), dtype=np.int64)


def _log_sizes(histories: Sequence[History]) -> tuple[FloatArray, FloatArray]:
    """Two (n_histories,) arrays: log number of events, and log events of a non-empty period."""
    events = np.array([history.n_events for history in histories], dtype=np.float64)
    return np.log(np.maximum(events, 1)), np.log(events_per_period(histories))


def events_per_period(histories: Sequence[History]) -> FloatArray:
    """(n_histories,) mean number of events in non-empty periods, 1 at least."""
    n_periods = np.array([history.n_periods for history in histories])
    last = (n_periods + 1).cumsum()
    sizes = np.diff(np.concatenate([history.offsets for history in histories]))
    sizes = np.delete(sizes, last[:-1] - 1)  # events of each period
    starts = n_periods.cumsum() - n_periods
    periods = np.add.reduceat(sizes > 0, starts, dtype=np.int64)
    return np.asarray(np.maximum(np.add.reduceat(sizes, starts) / np.maximum(periods, 1), 1.0))
