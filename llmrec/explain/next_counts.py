"""How many of a person's next events are of a category: whole numbers with their probability."""

from __future__ import annotations

from llmrec.beta_binomial import CountInterval
from llmrec.data.counts import events_per_share
from llmrec.data.periods import History
from llmrec.forecast import Forecast
from llmrec.forecasters.dispersion import events_per_period
from llmrec.forecasters.probability_words import format_probability
from llmrec.types import IntArray


def next_counts(
    history: History,
    forecast: Forecast,
    categories: IntArray,
    level: float = 0.8,
    n: int | None = None,
) -> tuple[int, list[CountInterval]]:
    """Give a number of events to come, and what each category's count among them lies between.

    The number, if none is given, is that of a period of events, or of a mean non-empty one. Of
    items in several categories an event counts for each.
    """
    length = history.period_length
    if n is None:
        n = length.n if length.unit == "events" else round(float(events_per_period([history])[0]))
    per_share = events_per_share([history])
    return n, [
        forecast.count_interval(int(c), n, level, events_per_share=float(per_share[c]))
        for c in categories
    ]


def format_count(count: CountInterval) -> str:
    """Write an interval of whole numbers with its probability: "2-5 (88%)"."""
    numbers = f"{count.low}-{count.high}" if count.low < count.high else str(count.low)
    return f"{numbers} ({format_probability(count.probability)})"
