"""What a page or a notebook shows of a person, as plain values: one model for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmrec.data.counts import target_events
from llmrec.data.periods import Window
from llmrec.explain.evidence import format_period_ahead
from llmrec.explain.facts import history_shares
from llmrec.explain.next_counts import format_count, next_counts
from llmrec.explain.plots import person_heading, top_categories
from llmrec.explain.statements import change_direction
from llmrec.forecast import Forecast
from llmrec.person_hindsight import (
    HindsightView,
    StatementView,
    observed_shares,
    statement_views,
)
from llmrec.person_list import ListView
from llmrec.person_timeline import TimelineView, period_intervals
from llmrec.ranking.edits import active_edits
from llmrec.ranking.ranking import MAX_STRENGTH
from llmrec.session import UserSession
from llmrec.types import FloatArray

MAX_CATEGORIES = 8  # that have a row of their own; edited ones come on top
# Of the sliders. Fitted strengths are multiples of .05: a slider can go back to them.
MAX_FACTOR_SHOWN, FACTOR_STEP, STRENGTH_STEP = 4.0, 0.25, 0.05


@dataclass(frozen=True)
class CategoryView:
    """One category of the forecast, beside what was taken so far, and its edit.

    Attributes
    ----------
    past, expected, edited
        Shares in [0, 1]: of all events so far, forecast, and forecast with the edits.
    low, high
        The share of the period lies between them with a probability of 80 %.
    count
        Whole numbers that its count among the next events lies between: "2-5 (88%)".
    direction
        1 where the forecast is clearly above the past, -1 clearly below, else 0.
    observed
        Share of the period as it happened; None where it is not known.
    """

    name: str
    past: float
    expected: float
    edited: float
    low: float
    high: float
    count: str
    direction: int
    observed: float | None


@dataclass(frozen=True)
class PersonView:
    """All that a page shows of a person, as plain values.

    Attributes
    ----------
    heading
        Whose picture it is, and of what.
    period
        What is forecast: "the next 28 days".
    description
        The forecast in words, of checked statements.
    source
        What forecast it, and why it fell back to counting if it did.
    n_next
        Number of events that the categories' counts are of.
    strength, max_strength
        How hard forecast and edits tilt the list, and the largest one that a slider offers.
    verb
        What the person did with the items.
    hindsight
        What happened in the period; None where it is not known, or not asked for.
    """

    user_id: str
    heading: str
    period: str
    description: str
    source: str
    n_next: int
    strength: float
    max_strength: float
    verb: str
    timeline: TimelineView
    categories: tuple[CategoryView, ...]
    statements: tuple[StatementView, ...]
    ranked: ListView
    hindsight: HindsightView | None = None

    @classmethod
    def of(
        cls,
        session: UserSession,
        k: int = 10,
        *,
        reasons: bool = False,
        before: UserSession | None = None,
        window: Window | None = None,
    ) -> PersonView:
        """Show a session.

        Parameters
        ----------
        reasons, before
            Of the list, see `ListView.of`.
        window
            The person's period as it happened, see `find_window`; None: it is not shown.

        Raises
        ------
        EditError
            If the session's edits cannot be applied to its forecast.
        """
        history, forecast = session.history, session.forecast
        observed = None if window is None else observed_shares(window)
        categories, n_next = _category_views(session, observed)
        ranked = ListView.of(session, k, reasons=reasons, before=before)
        return cls(
            user_id=history.user_id,
            heading=person_heading(history, forecast),
            period=format_period_ahead(history),
            description=forecast.description,
            source=_source_text(forecast),
            n_next=n_next,
            strength=session.strength,
            max_strength=max_strength(session.strength),
            verb=history.verb,
            timeline=TimelineView.of(session, observed),
            categories=categories,
            statements=statement_views(session, window),
            ranked=ranked,
            hindsight=None if window is None else _hindsight(session, window, categories, ranked),
        )

    def with_list(self, session: UserSession, k: int = 10) -> PersonView:
        """Give the same with the list of another session of the person; the rest stays."""
        return replace(self, ranked=ListView.of(session, k), strength=session.strength)


def max_strength(fitted: float) -> float:
    """Give the largest strength that a slider offers, where this one is fitted."""
    return min(MAX_STRENGTH, max(2.0, 2 * fitted))


def _category_views(
    session: UserSession, observed: FloatArray | None
) -> tuple[tuple[CategoryView, ...], int]:
    """Give the leading and the edited categories, and the number of events of their counts."""
    history, forecast = session.history, session.forecast
    past, expected = history_shares(history), forecast.category_weights
    edits = active_edits(session.edits, history.catalog, history.cutoff)
    leading = top_categories(past, expected, MAX_CATEGORIES)
    shown = np.array([*leading, *sorted(set(edits) - set(leading.tolist()))], dtype=np.int64)
    n_next, counts = next_counts(history, forecast, shown)
    intervals, direction = period_intervals(history, forecast), change_direction(history, forecast)
    edited = session.edited_forecast.category_weights
    views = []
    for c, count in zip(shown.tolist(), counts, strict=True):
        name = history.catalog.categories[c]
        views.append(
            CategoryView(
                name=name,
                past=float(past[c]),
                expected=float(expected[c]),
                edited=float(edited[c]),
                low=float(intervals[c, 0]),
                high=float(intervals[c, 1]),
                count=format_count(count),
                direction=int(direction[c]),
                observed=None if observed is None else float(observed[c]),
            )
        )
    return tuple(views), n_next


def _hindsight(
    session: UserSession, window: Window, categories: Sequence[CategoryView], ranked: ListView
) -> HindsightView:
    """Compare the period with the list, and with the counts that so many events should have."""
    names = session.history.catalog.categories
    shown = np.array([names.index(one.name) for one in categories], dtype=np.int64)
    n, counts = next_counts(session.history, session.forecast, shown, n=window.target.n_events)
    taken = target_events([window])[0, shown]
    inside = [one.low <= found <= one.high for one, found in zip(counts, taken, strict=True)]
    return HindsightView.of(window, [row.item_id for row in ranked.rows], inside if n else [])


def _source_text(forecast: Forecast) -> str:
    """Say what made a forecast: "GatedMixture, counting"."""
    source = forecast.source
    how = "counting alone, in its place" if source.how == "fallback" else source.how
    return f"{source.model}: {how}{f' ({source.why})' if source.why else ''}."
