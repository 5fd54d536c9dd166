"""The shares of a person's leading categories by period, and their forecast, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec.data.periods import History
from llmrec.explain.evidence import format_day, to_date
from llmrec.explain.facts import history_shares
from llmrec.explain.plots import COLORS, STEP_NOTE, TOP, ShareSeries, top_categories
from llmrec.forecast import Forecast
from llmrec.forecasters.dispersion import events_per_period
from llmrec.session import UserSession
from llmrec.types import FloatArray


@dataclass(frozen=True)
class TimelineView:
    """Shares of the leading categories by period, and their forecast: what the chart draws.

    Attributes
    ----------
    length
        Of a period, in words; periods may be merged, see `ShareSeries`.
    days
        (n_periods + 1,) first day of each period, and the day of the cutoff.
    names, colors
        (n,) of the categories, the largest forecast first.
    shares, smooth
        (n, n_periods) in [0, 1], each period alone and pooled with those beside it; None where
        there is no event.
    expected, edited
        (n,) forecast shares, and those with the edits.
    intervals
        (n, 2) that hold the period's share with a probability of 80 %.
    observed
        (n,) shares of the period as it happened; () where it is not known.
    note
        What a sudden step to the forecast is.
    """

    length: str
    days: tuple[str, ...]
    names: tuple[str, ...]
    colors: tuple[str, ...]
    shares: tuple[tuple[float | None, ...], ...]
    smooth: tuple[tuple[float | None, ...], ...]
    expected: tuple[float, ...]
    edited: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]
    observed: tuple[float, ...] = ()
    note: str = STEP_NOTE

    @classmethod
    def of(cls, session: UserSession, observed: FloatArray | None = None) -> TimelineView:
        """Take the categories that `interest_figure` draws; observed shares: (n_categories,)."""
        history, forecast = session.history, session.forecast
        series, expected = ShareSeries.of(history), forecast.category_weights
        leading = top_categories(history_shares(history), expected, TOP)
        return cls(
            length=str(series.length),
            days=tuple(format_day(to_date(time)) for time in (*series.starts, history.cutoff)),
            names=tuple(history.catalog.categories[c] for c in leading),
            colors=COLORS[: len(leading)],
            shares=_rows(series.shares[:, leading].T),
            smooth=_rows(series.smooth[:, leading].T),
            expected=tuple(expected[leading].tolist()),
            edited=tuple(session.edited_forecast.category_weights[leading].tolist()),
            intervals=tuple(map(tuple, period_intervals(history, forecast)[leading].tolist())),
            observed=() if observed is None else tuple(observed[leading].tolist()),
        )

    def drawn(self) -> dict[str, Any]:
        """Give the numbers that the chart's script draws; no text of the log is among them."""
        names = ("days", "colors", "shares", "smooth", "expected", "edited", "intervals")
        return {name: getattr(self, name) for name in (*names, "observed")}


def period_intervals(history: History, forecast: Forecast) -> FloatArray:
    """(n_categories, 2) bounds of each category's share of as many events as a period has."""
    return forecast.intervals(0.8, float(events_per_period([history])[0]))


def _rows(values: FloatArray) -> tuple[tuple[float | None, ...], ...]:
    """Give (n, m) values as plain ones, None for NaN."""
    return tuple(
        tuple(None if np.isnan(value) else float(value) for value in row) for row in values
    )
