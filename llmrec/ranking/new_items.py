"""Items that nobody has taken yet: which they are, and what ranks them among themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec.data.periods import History, Window
from llmrec.data.splits import from_targets_on
from llmrec.forecast import Forecaster
from llmrec.metrics import expected_random_ndcg
from llmrec.ranking.blend import Blend
from llmrec.ranking.feature_scorers import VECTOR_SCORERS, kind_of
from llmrec.ranking.fitting import STRENGTHS, inverse_spreads, ndcg_by_strength
from llmrec.ranking.selection import LIST_LENGTH, ListSelection
from llmrec.types import BoolArray, IntArray, RepeatPolicy

NEW_ITEM_SCORERS = ("TitleKernel", "EaseByText", "FactorsFromText")
NEW_ITEM_ONLY_SCORER = "EaseByText"  # in blends `EaseWithText` does better (LOG.md)
MIN_LISTS = 20  # people who took a new item in the last period: fewer fit no strength


@dataclass(frozen=True, eq=False)
class NewItemLists:
    """What ranks the items that nobody has taken yet.

    Attributes
    ----------
    blend
        Of scorers that know items by their titles, and by each block of their features.
    strength
        How hard the forecast tilts it.
    report
        Plain values: the new items of the last period, the people who took some, NDCG@10 of their
        lists, and that of random ones.
    """

    blend: Blend
    strength: float
    report: Mapping[str, Any]

    @classmethod
    def fit(
        cls, lists: ListSelection, forecaster: Forecaster, repeat: RepeatPolicy
    ) -> NewItemLists | None:
        """Fit it on what was new in the last period; None without a scorer of `NEW_ITEM_SCORERS`.

        Those of a block of features, such as "TitleKernel@image", are in it like those of titles.
        The weight of a scorer is 1 over the mean standard deviation of a person's scores: sums of
        standardised scores ranked new items better than weights of greatest likelihood, which one
        period's few new items do not settle (LOG.md). The strength is that of greatest NDCG@10.
        Where lists are no better than random ones then, or too few people took new items and the
        blend does without scorers by title, the forecast ranks new items alone.

        Parameters
        ----------
        lists
            Has scorers by title and feature, and the windows of the last period.
        forecaster
            Forecasts the windows' histories without their targets.
        repeat
            The log's rule for items already taken.
        """
        scorers, held_out = lists.text_scorers, lists.validation_text_scorers
        names = [name for name in scorers if kind_of(name) in NEW_ITEM_SCORERS]
        windows = lists.windows
        if not names:
            return None
        new = new_in_targets(windows)
        takers = [window for window in windows if np.isin(window.target.item_idx, new).any()]
        known = len(takers) >= MIN_LISTS
        shown = new if known else np.arange(windows[0].history.catalog.n_items)
        parts = [held_out[name] for name in names]
        weights = inverse_spreads(parts, [window.history for window in windows], shown)
        validation = Blend(parts, weights)
        report: dict[str, Any] = {"items": len(new), "people": len(takers)}
        by_title = [one for one in lists.members if kind_of(one.name) in VECTOR_SCORERS]
        strength, titles_tell = 0.0, any(one.weight for one in by_title)
        if known:
            values = ndcg_by_strength(forecaster, validation, takers, repeat, LIST_LENGTH, new)
            strength, ndcg = STRENGTHS[int(np.argmax(values))], float(values.max())
            n_taken = [len(np.intersect1d(one.target.item_idx, new)) for one in takers]
            by_chance = np.mean([expected_random_ndcg(LIST_LENGTH, n, len(new)) for n in n_taken])
            report |= {"ndcg": ndcg, "random_ndcg": float(by_chance)}
            titles_tell = ndcg > float(by_chance)
        if not titles_tell:
            weights, strength = (0.0,) * len(names), 1.0
        report["weights"] = dict(zip(names, weights, strict=True))
        return cls(Blend([scorers[name] for name in names], weights), strength, report)


def is_new_item(history: History) -> BoolArray:
    """(n_items,) which items nobody has taken before the history's cutoff."""
    population = history.population
    taken = np.zeros(history.catalog.n_items, dtype=np.bool_)
    taken[population.item_idx[population.timestamp < history.cutoff]] = True
    taken[history.item_idx] = True
    return ~taken


def new_in_targets(windows: Sequence[Window]) -> IntArray:
    """(n,) items that targets of windows hold and the log without them does not."""
    log, n_items = windows[0].history.log, windows[0].history.catalog.n_items
    taken = np.zeros(n_items, dtype=np.bool_)
    for window in windows:
        taken[window.target.item_idx] = True
    taken[log.item_idx[~from_targets_on(windows)]] = False
    return np.flatnonzero(taken)
