"""Reading by a language model for those people alone whom it helped where that was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llmrec.data.periods import History
from llmrec.forecast import Forecast, Forecaster
from llmrec.types import FloatArray, IntArray

MAX_GROUPS = 5
MIN_GROUP_WINDOWS = 50


@dataclass(frozen=True)
class GainGroup:
    """What a model gains for people with so many past events, up to the next group's.

    Attributes
    ----------
    min_events
        Fewest events of a history.
    gain
        Nats an event on held-out windows: (mean, low, high) of a 95 % interval.
    n
        Windows.
    """

    min_events: int
    gain: tuple[float, float, float]
    n: int

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> GainGroup:
        """Make it of what JSON holds; ValueError or TypeError if that is no group."""
        mean, low, high = (float(value) for value in values["gain"])
        return cls(int(values["min_events"]), (mean, low, high), int(values["n"]))

    @property
    def is_read(self) -> bool:
        """Whether the model is shown to help: the whole interval is above 0."""
        return self.gain[1] > 0


def group_gains(n_events: IntArray, gains: FloatArray) -> tuple[GainGroup, ...]:
    """Group windows by the events of their histories, about equally many in each.

    Parameters
    ----------
    n_events, gains
        (n_windows,) events before the cutoff, and what the model takes off the log-loss.
    """
    n_groups = max(1, min(MAX_GROUPS, len(gains) // MIN_GROUP_WINDOWS))
    edges = np.unique(np.quantile(n_events, np.arange(1, n_groups) / n_groups, method="higher"))
    starts = np.concatenate(([0], edges[edges > n_events.min()])).astype(int)
    group = np.searchsorted(starts, n_events, side="right") - 1
    return tuple(
        GainGroup(int(start), normal_interval(gains[group == place]), int((group == place).sum()))
        for place, start in enumerate(starts)
    )


def normal_interval(gains: FloatArray) -> tuple[float, float, float]:
    """Mean and its 95 % normal interval; as wide as can be for a single value."""
    mean = float(gains.mean())
    error = float(gains.std(ddof=1) / np.sqrt(len(gains))) if len(gains) > 1 else np.inf
    return mean, mean - 1.96 * error, mean + 1.96 * error


class SelectiveForecaster:
    """Forecasts by one forecaster for the people whom it helps, by another for everybody else.

    Parameters
    ----------
    model
        With a language model; it is not asked about the others.
    prior
        By numbers alone.
    groups
        By `group_gains`, of rising ``min_events``.
    """

    def __init__(self, model: Forecaster, prior: Forecaster, groups: Sequence[GainGroup]) -> None:
        self.model, self.prior, self.groups = model, prior, tuple(groups)

    def group_of(self, history: History) -> GainGroup:
        """Give the group that a person belongs to."""
        own = [one for one in self.groups if one.min_events <= history.n_events]
        return own[-1] if own else self.groups[0]

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        pairs = [(history, self.group_of(history)) for history in histories]
        read = iter(self.model.forecast([one for one, group in pairs if group.is_read]))
        others = iter(self.prior.forecast([one for one, group in pairs if not group.is_read]))
        return [
            next(read) if group.is_read else _with_reason(next(others), group) for _, group in pairs
        ]


def _with_reason(forecast: Forecast, group: GainGroup) -> Forecast:
    """Say in the source why the model was not read."""
    mean, low, high = group.gain
    not_read = (
        f"the language model was not read: for {group.n} people with about as many past events, "
        f"from {group.min_events}, it gained {mean:+.4f} nats an event ({low:+.4f} to {high:+.4f})"
    )
    why = "; ".join(filter(None, (forecast.source.why, not_read)))
    return replace(forecast, source=replace(forecast.source, why=why))
