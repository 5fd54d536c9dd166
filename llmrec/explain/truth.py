"""What is true of a forecast, claim by claim; and what came true: the words a model learns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import numpy.typing as npt

from llmrec.contracts import KINDS, FloatArray, Forecast, Kind, Source
from llmrec.data.periods import History, Window
from llmrec.errors import DataError
from llmrec.explain.evidence import past_shares, percent

if TYPE_CHECKING:
    from llmrec.language.codec import Codec

BoolArray = npt.NDArray[np.bool_]
LEAST_CHANGE = 0.01  # one point of a hundred; or one category's even share where that is less
LEAST_RELATIVE_CHANGE = 0.15  # 30% to 32% is a wobble, 5% to 6% is not
LEAST_SHARE = 0.01  # a forecast arrival must be more than a rounding error of a smoothed forecast
LEAST_PRESENCE = 0.5  # what holds steady was there in every other period at least
LEAST_CAME = 0.2  # how much of what came is in a line to learn from, at least
CLAIMS = 4  # that a line makes at most, and statements of a description


@dataclass(frozen=True, eq=False)
class Facts:
    """All that statements are judged by; arrays are (n_categories,) unless said otherwise."""

    past: FloatArray
    ahead: FloatArray
    trend: FloatArray  # share in the recent half of the non-empty periods minus in the earlier
    periods_with: npt.NDArray[np.int64]
    absent_lately: BoolArray
    n_periods: int  # non-empty ones
    noise: FloatArray  # standard deviation of (ahead - past)

    @classmethod
    def of(cls, history: History, forecast: Forecast) -> Facts:
        """Compare a history with a forecast, or with `what_came`."""
        counts = history.category_counts
        counts = counts[counts.sum(axis=1) > 0]
        past, ahead = past_shares(history), forecast.category_weights
        earlier, recent = np.split(counts, [len(counts) // 2])
        variance = past * (1 - past) / max(history.n_events, 1)
        variance = variance + ahead * (1 - ahead) / (forecast.concentration + 1)
        return cls(
            past=past,
            ahead=ahead,
            trend=_shares(recent) - _shares(earlier),
            periods_with=np.count_nonzero(counts, axis=0),
            absent_lately=history.absent_lately,
            n_periods=len(counts),
            noise=np.sqrt(np.maximum(variance, 1e-12)),
        )

    @property
    def change(self) -> FloatArray:
        """Share ahead minus share so far."""
        return self.ahead - self.past

    @property
    def least(self) -> FloatArray:
        """Give the smallest change that is no wobble."""
        smallest = min(LEAST_CHANGE, 1 / len(self.past))
        return np.maximum(smallest, LEAST_RELATIVE_CHANGE * self.past)

    def conditions(self, kind: Kind) -> tuple[tuple[BoolArray, str], ...]:
        """Each a (n_categories,) mask of where it holds, and what is wrong where it does not."""
        size = len(self.past)
        taken = (self.periods_with > 0, "it was never taken")
        compared = (np.full(size, self.n_periods >= 2), "two non-empty periods are needed")
        arrives = max(LEAST_SHARE, 1 / size) if kind == "new" else LEAST_SHARE
        forecast = (self.ahead >= arrives, f"less than {percent(arrives)} is forecast")
        rules: dict[Kind, tuple[tuple[BoolArray, str], ...]] = {
            "rising": (
                (self.change >= self.least, "the forecast is not clearly above the past"),
                (self.trend >= 0, "its share fell within the history"),
                (~self.absent_lately, "it was not taken in the last two non-empty periods"),
                taken,
                compared,
            ),
            "fading": (
                (self.change <= -self.least, "the forecast is not clearly below the past"),
                (self.trend <= 0, "its share rose within the history"),
                compared,
            ),
            "steady": (
                (np.abs(self.change) < self.least, "the forecast clearly leaves the past"),
                (
                    (self.periods_with >= LEAST_PRESENCE * self.n_periods) & taken[0],
                    "it is missing from more than half of the non-empty periods",
                ),
            ),
            "new": ((~taken[0], "it was taken before"), forecast),
            "returning": (
                taken,
                (self.absent_lately, "it was taken in the last two non-empty periods"),
                compared,
                forecast,
            ),
        }
        return rules[kind]

    def supports(self, kind: Kind) -> BoolArray:
        """(n_categories,) where a statement of this kind is true."""
        masks = np.stack([mask for mask, _ in self.conditions(kind)])
        return np.asarray(masks.all(axis=0), dtype=np.bool_)

    def most_telling(self, weight: FloatArray, limit: int) -> list[tuple[Kind, int]]:
        """Choose true (kind, category) claims: one a category, the kinds in turn.

        Rising and fading take their turns first, then whatever has the largest ``weight``
        (n_categories,); the claims come in that order too. Steady ones are last, by share.
        """

        def order(claim: tuple[Kind, int]) -> tuple[float, float, int]:
            kind, category = claim
            size = 0.0 if kind == "steady" else float(weight[category])
            return -size, -float(self.ahead[category]), -KINDS.index(kind)

        true = [(kind, int(c)) for kind in KINDS for c in np.flatnonzero(self.supports(kind))]
        true.sort(key=order)
        turn: dict[tuple[Kind, int], tuple[int, bool]] = {}
        of_kind: Counter[Kind] = Counter()
        for kind, category in true:
            turn[kind, category] = (of_kind[kind], kind not in ("rising", "fading"))
            of_kind[kind] += 1
        chosen: dict[int, Kind] = {}
        for kind, category in sorted(true, key=turn.__getitem__):
            if len(chosen) < limit:
                chosen.setdefault(category, kind)
        return sorted(((kind, category) for category, kind in chosen.items()), key=order)


def what_came(window: Window) -> Forecast:
    """Write what really came as a forecast: the target's shares, as sure as it has events.

    Raises
    ------
    DataError
        If no event of the target has a category.
    """
    counts = window.target.category_counts
    if not counts.any():
        raise DataError(
            f"user {window.history.user_id!r}: no event of the period from "
            f"{window.target.period.start} has a category, so nothing can be said of it; leave the "
            "window out."
        )
    source = Source("what came", "counting")
    return Forecast(counts / counts.sum(), float(window.target.n_events), "", (), source)


def true_claims(window: Window, limit: int = CLAIMS) -> list[tuple[Kind, int]]:
    """Give what changed from a history to what really came, the largest changes first.

    The conditions are those that a forecast's claims must meet; one claim a category, the kinds in
    turn. None if nothing meets them.
    """
    return _claims(window.history, what_came(window), limit)


def completion(codec: Codec, window: Window, prior: FloatArray, seed: int) -> str:
    """Write a forecast line between what was expected and what came: what a model learns to write.

    A forecast lies between what was to be expected and what came. So does this line, at a share
    drawn from its facts: q = (1 - share) * prior + share * what came, and the words are true of q.
    Without true claims there are no words.

    Parameters
    ----------
    prior
        (n_categories,) what was to be expected.
    seed
        With user and cutoff it decides share and phrases.
    """
    history, came = window.history, what_came(window)
    rng = drawer(seed, history.user_id, history.cutoff)
    share = rng.uniform(LEAST_CAME, 1.0)
    weights = (1 - share) * prior + share * came.category_weights
    ahead = replace(came, category_weights=weights / weights.sum())
    words = codec.words(_claims(history, ahead, CLAIMS), rng)
    return codec.render(replace(ahead, description=words))


def _claims(history: History, ahead: Forecast, limit: int) -> list[tuple[Kind, int]]:
    """Give true (kind, category) claims, the largest changes first, see `Facts.most_telling`."""
    facts = Facts.of(history, ahead)
    return facts.most_telling(np.abs(facts.change), limit)


def drawer(*facts: object) -> np.random.Generator:
    """Give a generator that these facts alone decide, whatever was drawn before."""
    return np.random.default_rng(crc32(repr([str(fact) for fact in facts]).encode()))


def _shares(counts: FloatArray) -> FloatArray:
    """(n_categories,) shares of (n_periods, n_categories) counts; zeros if there are none."""
    totals = counts.sum(axis=0)
    return np.asarray(totals / (totals.sum() or 1.0), dtype=np.float64)
