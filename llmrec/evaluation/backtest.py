"""The windows to learn from, to tune on and to be judged on; rankings judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from llmrec.contracts import IntArray
from llmrec.data.periods import PeriodLength, Window, cutoffs, make_windows, timelines
from llmrec.data.readers import Dataset
from llmrec.errors import DataError
from llmrec.evaluation.metrics import bootstrap_interval, ndcg_at, recall_at
from llmrec.ranking.blend import Repeat
from llmrec.ranking.tilt import Ranking

MIN_TARGET_EVENTS = 5


def splits(dataset: Dataset) -> dict[str, list[Window]]:
    """Give the windows to tune on ("validation") and to report ("test", ...), by name.

    Calendar periods: targets are the last three complete periods, the first of them for validation;
    a history has three non-empty periods, a target five events. Periods of events: a user's last
    complete period is the test, the one before it validation; a history has two periods at least.
    "Before" then holds person by person: one's validation may follow another's test in time.
    """
    log, catalog = dataset.log, dataset.catalog
    if PeriodLength.parse(dataset.period).unit == "events":
        return {
            name: make_windows(log, catalog, dataset.period, back=back, min_periods=periods)
            for name, back, periods in (("validation", 1, 1), ("test", 0, 2))
        }
    grid = cutoffs(log, dataset.period)
    if len(grid) < 5:
        raise DataError(
            f"{dataset.name} spans {len(grid) - 1} whole periods of {dataset.period}; a history, a "
            "validation and two test periods need 4. Choose a shorter period."
        )
    return {
        name: make_windows(
            log,
            catalog,
            dataset.period,
            cutoff,
            min_periods=min(3, len(grid) - 4),
            min_target_events=MIN_TARGET_EVENTS,
        )
        for name, cutoff in zip(("validation", "test 1", "test 2"), grid[-4:-1], strict=True)
    }


def training_windows(dataset: Dataset) -> list[Window]:
    """Give every window whose target ends before the validation targets begin.

    The same person gives one at each of their earlier periods; histories have two non-empty periods
    (one with periods of events).
    """
    log, catalog, found = dataset.log, dataset.catalog, []
    if PeriodLength.parse(dataset.period).unit == "events":
        back = 2
        while windows := make_windows(log, catalog, dataset.period, back=back):
            found += windows
            back += 1
        return found
    for cutoff in cutoffs(log, dataset.period)[1:-4]:
        found += make_windows(
            log,
            catalog,
            dataset.period,
            cutoff,
            min_periods=2,
            min_target_events=MIN_TARGET_EVENTS,
        )
    return found


def training_timelines(dataset: Dataset, *, validated: bool = False) -> list[list[Window]]:
    """Give everybody's windows at the end of every tick (see `llmrec.data.periods.timelines`).

    Targets end before the validation targets begin: all of them with calendar periods, those of the
    same person with periods of events. ``validated``: before the test targets begin, for a model
    that is fitted once more when validation has decided.
    """
    log, catalog = dataset.log.aligned(dataset.catalog), dataset.catalog
    found = splits(dataset)
    if PeriodLength.parse(dataset.period).unit != "events":
        cutoff = cutoffs(log, dataset.period)[-3 if validated else -4]
        return timelines(log, catalog, dataset.period, cutoff, min_target_events=MIN_TARGET_EVENTS)
    ends = log.user_offsets[1:].copy()
    for windows in [found["test"]] if validated else found.values():
        users = [window.history.user_idx for window in windows]
        np.minimum.at(ends, users, [window.target.start for window in windows])
    return timelines(log, catalog, dataset.period, ends.tolist())


def draw(windows: Sequence[Window], n: int | None, seed: int = 0) -> list[Window]:
    """Draw n windows at random without replacement, in their order; all of them if n is None."""
    if n is not None and n < 1:
        raise DataError(f"{n} windows cannot be drawn; give 1 or more, or None for all.")
    if n is None or n >= len(windows):
        return list(windows)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(windows))[:n])
    return [windows[row] for row in chosen]


def evaluate_rankings(
    rankings: Mapping[str, Sequence[Ranking]],
    windows: Sequence[Window],
    *,
    repeat: Repeat = "allow",
    k: int = 10,
) -> pd.DataFrame:
    """Judge rankings of the full catalog by NDCG@k and Recall@k of the target's items.

    "ndcg@k repeat" and "ndcg@k explore" (and recall alike) take as relevant only what the history
    holds, and only what it does not hold. With ``repeat="exclude"`` nothing else is relevant
    anyway. A user without a relevant item is NaN and left out of n.
    """
    rows = []
    for name, per_user in rankings.items():
        for kind in ("explore",) if repeat == "exclude" else ("", "repeat", "explore"):
            relevant = [_relevant(window, kind) for window in windows]
            label = "" if repeat == "exclude" or not kind else f" {kind}"
            for metric, score in (("ndcg", ndcg_at), ("recall", recall_at)):
                values = np.array(
                    [
                        score(k, ranking.item_idx, items)
                        for ranking, items in zip(per_user, relevant, strict=True)
                    ]
                )
                n = int(np.isfinite(values).sum())
                rows.append((name, f"{metric}@{k}{label}", *bootstrap_interval(values), n))
    return pd.DataFrame(rows, columns=["model", "metric", "value", "low", "high", "n"])


def _relevant(window: Window, kind: str) -> IntArray:
    """Items of the target: all, those taken before ("repeat") or not before ("explore")."""
    items, seen = window.target.item_idx, window.history.item_idx
    if kind == "repeat":
        return np.intersect1d(items, seen)
    return np.setdiff1d(items, seen) if kind == "explore" else items
