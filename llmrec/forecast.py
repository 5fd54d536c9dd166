"""Forecasts with their statements and source; protocols of forecasters and of item scorers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from llmrec.data.periods import History
from llmrec.types import FloatArray, IntArray

if TYPE_CHECKING:
    from llmrec.beta_binomial import CountInterval

StatementKind = Literal["again", "fading", "nothing of", "rising", "new", "returning", "steady"]
# Kinds that are said. "steady" is of version 0.1: it is read, and nobody can foresee it.
STATEMENT_KINDS: tuple[StatementKind, ...] = (
    "again",
    "fading",
    "nothing of",
    "rising",
    "new",
    "returning",
)


@dataclass(frozen=True)
class Statement:
    """One checkable claim about an interest in the next period.

    Attributes
    ----------
    kind
        What becomes of the category: it is taken "again", or "nothing of" it; its share is
        "rising" or "fading"; it is "new", or "returning" after a pause.
    category
        Category index, 0..n_categories-1.
    change
        Forecast share minus share of the history, in [-1, 1].
    event_ids
        Positions in the log of the events that support the claim (newest first; none if absence
        is the evidence).
    probability
        That it comes true, in (0, 1); None where nothing was fitted that gives one.
    usual_rate
        Share of all such statements, of anybody and any category, that come true; None as above.
    """

    kind: StatementKind
    category: int
    change: float
    event_ids: tuple[int, ...] = ()
    probability: float | None = None
    usual_rate: float | None = None


@dataclass(frozen=True, eq=False)
class StatementChances:
    """How likely statements about one person's next period are, by kind.

    Attributes
    ----------
    probabilities
        (n_categories,) in (0, 1); NaN where the statement cannot be made, or its kind has no
        calibrated probability.
    gains
        (n_categories,) how much more a statement tells than what is known without the forecast;
        NaN where it is not worth saying.
    usual_rates
        Share of all statements of a kind that come true; kinds without a probability are missing.
    """

    probabilities: Mapping[StatementKind, FloatArray]
    gains: Mapping[StatementKind, FloatArray]
    usual_rates: Mapping[StatementKind, float]


class StatementModel(Protocol):
    """Knows how likely statements about next periods are."""

    def chances(
        self, histories: Sequence[History], category_weights: FloatArray
    ) -> list[StatementChances]:
        """Give those of each person under (n_people, n_categories) forecast weights."""
        ...


@dataclass(frozen=True)
class Source:
    """How a forecast was made: enough to make it again.

    ``how`` is "llm" where the language model changed the weights, "counting" where they are of
    numbers alone, and "fallback" where the model's scores were not used; ``why`` gives the reason,
    and tells who worded the description if a server was to. ``proposed`` counts the statements of
    the description that the model, or the server, proposed and the checker accepted, ``rejected``
    those that it did not.
    """

    model: str
    how: Literal["llm", "counting", "fallback"]
    why: str = ""
    prompt: str = ""
    adapter: str = ""
    seed: int = 0
    proposed: int = 0
    rejected: int = 0


@dataclass(frozen=True, eq=False)
class Forecast:
    """A person's interests in the next period, or a later one, in numbers and in words.

    Attributes
    ----------
    category_weights
        (n_categories,) float64, >= 0, sums to 1.
    concentration
        Dirichlet concentration (> 0) of the shares behind the period's events: the larger, the
        more certain.
    description
        The period in words.
    statements
        The claims of the description, each with its evidence.
    source
        Its model, prompt and seed, or the fallback and its reason.
    statement_model
        What gives probabilities to statements about it; None: they have none.
    horizon
        Which period after the cutoff it is of, >= 1: 1 is the next one.
    """

    category_weights: FloatArray
    concentration: float
    description: str
    statements: tuple[Statement, ...]
    source: Source
    statement_model: StatementModel | None = field(default=None, repr=False)
    horizon: int = 1

    def __post_init__(self) -> None:
        weights = np.asarray(self.category_weights, dtype=np.float64)
        total = weights.sum()
        # A weight that is no number, or infinite, makes the total so: three passes are one.
        if weights.ndim != 1 or not (math.isfinite(total) and weights.min(initial=0.0) >= 0):
            raise ValueError(
                "category_weights must be a finite, non-negative (n_categories,) array"
            )
        if abs(total - 1) > 1e-6:
            raise ValueError(f"category_weights must sum to 1, not {total:.6g}")
        if not (math.isfinite(self.concentration) and self.concentration > 0):
            raise ValueError(f"concentration must be finite and > 0, not {self.concentration}")
        weights.flags.writeable = False
        object.__setattr__(self, "category_weights", weights)

    def intervals(
        self,
        level: float = 0.8,
        n_events: float | None = None,
        categories: IntArray | None = None,
    ) -> FloatArray:
        """Central interval of each category's share of the period.

        Parameters
        ----------
        level
            Probability inside the interval, in (0, 1).
        n_events
            Events of the period, >= 1, among which the share is seen: few events scatter. None: the
            share behind them, as if they were many.
        categories
            (n,) the only categories whose intervals are computed; None: all.

        Returns
        -------
        FloatArray
            (n, 2) lower and upper shares. Marginals of a Dirichlet are
            Beta(c w, c (1 - w)); of n events it is the Beta distribution with the variance of
            their beta-binomial share, w (1 - w) (1 / (c + 1) + c / (c + 1) / n).
        """
        from scipy import stats

        c = self.concentration
        if n_events is not None:
            variance = (1 + c / max(n_events, 1.0)) / (c + 1)
            c = max(1 / variance - 1, 1e-6)
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        weights = self.category_weights if categories is None else self.category_weights[categories]
        weights = np.clip(weights, 1e-12, 1 - 1e-12)[:, None]
        return np.asarray(stats.beta.ppf(tails, c * weights, c * (1 - weights)), dtype=np.float64)

    def count_interval(
        self, category: int, n: int, level: float = 0.8, *, events_per_share: float = 1.0
    ) -> CountInterval:
        """Whole numbers that a category's count among the next n events lies between.

        Parameters
        ----------
        category
            Category index, 0..n_categories-1.
        n
            Number of events, 0 or more.
        level
            Probability to come near to, in (0, 1). Whole numbers rarely meet it: the interval has
            its own.
        events_per_share
            Where items have several categories: events with this one, per event and per unit of
            its share, see `llmrec.data.counts.events_per_share`.

        Returns
        -------
        CountInterval
            ``low``, ``high`` (both inside) and ``probability``, of the beta-binomial of n events.

        Raises
        ------
        ValueError
            If the level or n is out of bounds.
        """
        if not (0 < level < 1 and n >= 0 and n == int(n)):
            raise ValueError(
                f"the level must lie in (0, 1), and n be a number of events, not {level} and {n}"
            )
        from llmrec.beta_binomial import MAX_SHARE, MIN_SHARE, count_interval

        share = float(self.category_weights[category]) * events_per_share
        share = min(max(share, MIN_SHARE), MAX_SHARE)
        k = self.concentration
        return count_interval(n, k * share, k * (1 - share), level)

    def sample(self, n: int, seed: int = 0) -> FloatArray:
        """Draw (n, n_categories) interest vectors from the forecast's Dirichlet."""
        alpha = self.concentration * np.maximum(self.category_weights, 1e-12)
        return np.random.default_rng(seed).dirichlet(alpha, size=n)

    def top(self, k: int) -> IntArray:
        """Give the (k,) categories of largest weight, heaviest first; ties by index."""
        return np.argsort(-self.category_weights, kind="stable")[:k].astype(np.int64)

    def with_weights(self, category_weights: FloatArray) -> Forecast:
        """Give the same forecast with other category weights."""
        return replace(self, category_weights=category_weights)

    def within(self, categories: IntArray) -> Forecast:
        """Give the forecast of what is taken of some categories alone, such as one platform's.

        Shares among them are of a Dirichlet, too: with the weights scaled to sum to 1, and the
        concentration times what they summed to. Others weigh 0. It says nothing in words: the
        statements were about shares of everything.

        Parameters
        ----------
        categories
            (n,) category indices, 0..n_categories-1.

        Raises
        ------
        ValueError
            If one is no category, or together they weigh nothing.
        """
        chosen = np.asarray(categories)
        n_categories = len(self.category_weights)
        if not (
            np.issubdtype(chosen.dtype, np.integer)
            and ((chosen >= 0) & (chosen < n_categories)).all()
        ):
            raise ValueError(f"categories must be indices 0..{n_categories - 1}, not {categories}")
        weights = np.zeros(n_categories)
        weights[chosen] = self.category_weights[chosen]
        total = float(weights.sum())
        if not total > 0:
            raise ValueError("the forecast gives these categories no weight: there is no mix.")
        concentration = max(self.concentration * total, np.finfo(np.float64).tiny)
        return Forecast(weights / total, concentration, "", (), self.source)


class Forecaster(Protocol):
    """Forecasts category weights. A batch gives what single calls give."""

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff; all histories are of one log."""
        ...


class ItemScorer(Protocol):
    """Scores items, on the log-probability scale."""

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """Score the whole catalog for histories of one log: (n_users, n_items), finite."""
        ...
