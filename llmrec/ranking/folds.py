"""Past periods of lists: their windows, and scorers fitted on what precedes these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.history_keys import history_key
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window
from llmrec.data.splits import sample_windows, training_log_for
from llmrec.data.windows import MIN_FIT_WINDOWS
from llmrec.forecast import ItemScorer
from llmrec.ranking.blend import PrecomputedScorer
from llmrec.ranking.blocks import MAX_SMALL_CATALOG
from llmrec.ranking.gbdt import GBDTReranker

# Scorers x windows x items of one fold that are stored: half a gigabyte in single precision, and
# twice as much while weights are fitted.
MAX_STORED_SCORES = 120_000_000
# The same where scores are not stored: half a minute, several times.
MAX_FOLD_SCORES = 600_000_000

FitScorers = Callable[[Sequence[str], Interactions, None], Mapping[str, ItemScorer]]


@dataclass(frozen=True, eq=False)
class ListFold:
    """Windows of one period, and scorers by name that have not seen their targets."""

    windows: Sequence[Window]
    scorers: Mapping[str, ItemScorer]

    @classmethod
    def fit(
        cls,
        windows: Sequence[Window],
        catalog: Catalog,
        names: Sequence[str],
        seed: int,
        fit: FitScorers,
        with_trees: bool,
    ) -> ListFold:
        """Fit scorers on what precedes windows, and take as many of these as can be scored.

        Of a small catalog the scores are stored. Of a large one scorers score again whenever they
        are asked, a block of people at a time, and without trees, which need the scores of all
        folds, all windows are taken.
        """
        fitted = fit(names, training_log_for(windows).align_to(catalog), None)
        is_large = catalog.n_items > MAX_SMALL_CATALOG
        if is_large and not with_trees:
            return cls(windows, fitted)
        most = MAX_FOLD_SCORES if is_large else MAX_STORED_SCORES
        limit = max(MIN_FIT_WINDOWS, most // (len(names) * catalog.n_items))
        sample = sample_windows(windows, limit, seed)
        if is_large:
            return cls(sample, fitted)
        histories = [window.history for window in sample]
        stored = {
            name: _in_single(PrecomputedScorer.of(scorer, histories))
            for name, scorer in fitted.items()
        }
        return cls(sample, stored)

    def scored_by_trees(self, trees: GBDTReranker, names: Sequence[str]) -> ItemScorer:
        """Give trees that were fitted with the scorers of these names as one more scorer."""
        parts = [self.scorers[name] for name in names]
        if not all(isinstance(part, PrecomputedScorer) for part in parts):
            return trees
        histories = [window.history for window in self.windows]
        first = np.stack([part.scores(histories) for part in parts])
        rows = zip(map(history_key, histories), trees.second_scores(first, histories), strict=True)
        return PrecomputedScorer(trees.name, dict(rows))


def _in_single(scorer: PrecomputedScorer) -> PrecomputedScorer:
    """Give the same in half of the memory: trees split in single precision anyway."""
    rows: Any = {key: row.astype(np.float32) for key, row in scorer.rows.items()}
    return PrecomputedScorer(scorer.name, rows)
