"""Scorers fitted on what precedes past periods, and what they score for the windows of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window
from llmrec.data.splits import sample_windows, training_log_for
from llmrec.data.windows import MIN_FIT_WINDOWS
from llmrec.errors import LlmrecError
from llmrec.forecast import ItemScorer
from llmrec.ranking.blend import PrecomputedScorer

# Scorers x windows x items of one fold: half a gigabyte in single precision, and twice as much
# while weights are fitted. Folds that are joined should have few windows together.
MAX_FOLD_SCORES = 120_000_000
# What leaves a member out, with the reason in the report, instead of ending the fit.
MEMBER_ERRORS = (LlmrecError, ValueError, ImportError)
FitScorer = Callable[[str, Interactions, np.datetime64 | None], ItemScorer]
FitScorers = Callable[[Sequence[str], Interactions, np.datetime64 | None], Mapping[str, ItemScorer]]


@dataclass(eq=False)
class ScoredFold:
    """Windows of one past period, or of several, and scorers that have not seen their targets.

    Attributes
    ----------
    scorers
        Their scores of the windows' histories, by name.
    n_periods
        Of which the windows are.
    """

    windows: Sequence[Window]
    scorers: Mapping[str, ItemScorer]
    n_periods: int = 1


def fit_folds(
    folds: Sequence[Sequence[Window]],
    catalog: Catalog,
    of_newest: Sequence[str],
    of_earlier: Sequence[str],
    seed: int,
    fit: FitScorers,
) -> list[ScoredFold]:
    """Fit scorers on what precedes each fold: other ones for the newest, which is the first."""
    names = [of_newest, *[of_earlier] * (len(folds) - 1)]
    return [
        _fit_fold(windows, catalog, each, seed, fit)
        for windows, each in zip(folds, names, strict=True)
    ]


def _fit_fold(
    windows: Sequence[Window],
    catalog: Catalog,
    names: Sequence[str],
    seed: int,
    fit: FitScorers,
) -> ScoredFold:
    """Fit scorers on what precedes windows, and score as many of these as memory allows."""
    limit = max(MIN_FIT_WINDOWS, MAX_FOLD_SCORES // (len(names) * catalog.n_items))
    sample = sample_windows(windows, limit, seed)
    fitted = fit(names, training_log_for(windows).align_to(catalog), None)
    histories = [window.history for window in sample]
    stored = {
        name: _in_single(PrecomputedScorer.of(scorer, histories)) for name, scorer in fitted.items()
    }
    return ScoredFold(sample, stored)


def join_folds(folds: Sequence[ScoredFold], names: Sequence[str]) -> ScoredFold:
    """Give the windows of all folds as one, with the scores that each has of its own past."""
    parts: list[Mapping[str, Any]] = [fold.scorers for fold in folds]
    rows = {
        name: {key: row for part in parts for key, row in part[name].rows.items()} for name in names
    }
    scorers = {name: PrecomputedScorer(parts[0][name].name, rows[name]) for name in names}
    return ScoredFold([window for fold in folds for window in fold.windows], scorers, len(folds))


def fit_scorers(
    names: Sequence[str],
    log: Interactions,
    cutoff: np.datetime64 | None,
    fit_scorer: FitScorer,
    failed: dict[str, str],
) -> dict[str, ItemScorer]:
    """Fit scorers on a log; why one fails goes into ``failed``, and it is not tried again."""
    found = {}
    for name in names:
        if name in failed:
            continue
        try:
            found[name] = fit_scorer(name, log, cutoff)
        except MEMBER_ERRORS as error:
            failed[name] = f"{name}: {error}"
    return found


def _in_single(scorer: PrecomputedScorer) -> PrecomputedScorer:
    """Give the same in half of the memory: trees split in single precision anyway."""
    rows: Any = {key: row.astype(np.float32) for key, row in scorer.rows.items()}
    return PrecomputedScorer(scorer.name, rows)
