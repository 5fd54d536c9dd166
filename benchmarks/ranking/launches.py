"""New items of Online Retail, ranked among themselves before anybody has taken one of them.

A shelf is what was first sold in 28 days. It is ranked for everybody who took some of it in that
time and had bought before; scorers are fitted on what precedes it, and know the new items by the
titles of their first sales. NDCG@10 is an expectation where scores are equal. Intervals are over
people, those of "ndcg@10 over items" over the items of the shelves.

The environment variable LLMREC_ONLINE_RETAIL says where the published file is.

Run: python -m benchmarks.ranking.launches
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmarks.harness.formatting import Row
from benchmarks.harness.results import record_results, value_row
from benchmarks.ranking.tied_ndcg import TiedRanking
from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, truncate_log
from llmrec.data.readers import load_dataset
from llmrec.data.validation import ITEM_ID, TIMESTAMP
from llmrec.engine import InterestEngine
from llmrec.metrics import percentile_interval, resampled_means
from llmrec.ranking.item_item import ItemToItem
from llmrec.ranking.text_ease import EaseByText
from llmrec.ranking.text_factors import FactorsFromText
from llmrec.ranking.text_scorers import TextPopularity, TitleKernel
from llmrec.types import BoolArray, FloatArray, IntArray

VARIABLE = "LLMREC_ONLINE_RETAIL"
SPAN = np.timedelta64(28, "D")
STARTS = {
    "validation": ("2011-07-23", "2011-08-20", "2011-09-17"),
    "test": ("2011-10-15", "2011-11-12"),
}
DRAWS = 2_000  # of people
ITEM_DRAWS = 1_000
METRIC = "ndcg@10"
RANDOM, POPULAR, ENGINE = "Random", "TextPopularity", "llmrec quick"
TextScorer = TextPopularity | ItemToItem | FactorsFromText | TitleKernel
SUMMED = ("TitleKernel", "EaseByText", "FactorsFromText")
SCORERS: dict[str, Callable[[], TextScorer]] = {
    POPULAR: TextPopularity,
    "EaseByText": lambda: ItemToItem(EaseByText()),
    "FactorsFromText": FactorsFromText,
    "TitleKernel without projection": lambda: TitleKernel(0.4, projection="none"),
    "TitleKernel": TitleKernel,
}


@dataclass(frozen=True, eq=False)
class LaunchShelf:
    """New items, and the people to rank them for.

    Attributes
    ----------
    start
        From when they were sold.
    known
        The dataset with the events before that, and all items.
    items
        (n_shelf,) indices into its catalog.
    histories
        Of n_people before the start.
    taken
        (n_people, n_shelf) what they took within 28 days.
    """

    start: np.datetime64
    known: Dataset
    items: IntArray
    histories: list[History]
    taken: BoolArray

    @classmethod
    def of(cls, dataset: Dataset, start: str) -> LaunchShelf:
        """Find what the log names within 28 days from a day on, and not before."""
        rows = dataset.item_rows
        assert rows is not None
        begin = np.datetime64(start, "ms")
        first = rows.groupby(ITEM_ID)[TIMESTAMP].min()
        # A new item has the title of its first sale, not the one that it will have most often.
        rows = rows[rows[ITEM_ID].map(first) < begin + SPAN]
        said = (rows[TIMESTAMP] < begin) | (rows[TIMESTAMP] == rows[ITEM_ID].map(first))
        known = replace(dataset, item_rows=rows[said]).with_categories_before(begin)
        log = known.log.align_to(known.catalog)
        before = replace(known, log=truncate_log(log, begin))
        is_new = (first >= begin) & (first < begin + SPAN)
        items = np.flatnonzero(known.catalog.item_ids.isin(first.index[is_new]))
        place = np.full(known.catalog.n_items, -1)
        place[items] = np.arange(len(items))
        sold = (log.timestamp >= begin) & (log.timestamp < begin + SPAN)
        sold &= (place[log.item_idx] >= 0) & log.user_ids.isin(before.log.user_ids)[log.user_idx]
        users, row = np.unique(log.user_idx[sold], return_inverse=True)
        taken = np.zeros((len(users), len(items)), dtype=bool)
        taken[row, place[log.item_idx[sold]]] = True
        earlier = [before.log.user_index(str(log.user_ids[user])) for user in users]
        return cls(begin, before, items, before.histories(begin, earlier), taken)

    @property
    def user_ids(self) -> list[str]:
        """(n_people,) of the histories."""
        return [history.user_id for history in self.histories]


@dataclass(frozen=True, eq=False)
class ShelfScores:
    """What a fitted scorer says of a shelf.

    Attributes
    ----------
    log_probabilities, raw
        (n_people, n_shelf) of `scores` and of `raw_scores`.
    seconds
        Of the processor, to fit.
    """

    log_probabilities: FloatArray
    raw: FloatArray
    seconds: float

    @classmethod
    def of(cls, shelf: LaunchShelf, make: Callable[[], TextScorer]) -> ShelfScores:
        """Fit a scorer on what precedes the shelf, and score it."""
        # Title vectors are cached by catalog: each scorer is to find its own.
        catalog = replace(shelf.known.catalog)
        histories = [replace(history, catalog=catalog) for history in shelf.histories]
        start = time.process_time()
        scorer = make().fit(shelf.known.log, catalog, shelf.start)
        seconds = time.process_time() - start
        log_probabilities, raw = scorer.scores(histories), scorer.raw_scores(histories)
        return cls(log_probabilities[:, shelf.items], raw[:, shelf.items], seconds)


def standardised(scores: FloatArray) -> FloatArray:
    """(n_people, n_shelf) each person's scores over the shelf with mean 0 and deviation 1.

    -inf counts as the person's smallest score; equal scores give 0.
    """
    least = np.where(np.isfinite(scores), scores, np.inf).min(axis=1, keepdims=True)
    centred = np.maximum(scores, np.where(np.isfinite(least), least, 0.0))
    centred -= centred.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    return np.asarray(centred / np.where(deviation > 1e-12, deviation, 1.0))


def engine_scores(shelf: LaunchShelf) -> FloatArray:
    """(n_people, n_shelf) scores of lists of new items by an engine that was fitted before."""
    # What is known of the new items is given apart from the log, which does not name them yet.
    known = replace(shelf.known, item_rows=None, title_categories=None)
    engine = InterestEngine.from_pretrained(
        data=known, cutoff=shelf.start, model=None, refit=True, describe=False
    )
    found = np.empty(shelf.taken.shape)
    for row, user in zip(found, shelf.user_ids, strict=True):
        ranking = engine.session(user, shelf="new").ranking()
        scores = np.full(known.catalog.n_items, -np.inf)
        scores[ranking.item_idx] = ranking.scores
        row[:] = scores[shelf.items]
    return found


def rankings(
    shelf: LaunchShelf, scored: Mapping[str, ShelfScores], of_engine: FloatArray
) -> dict[str, TiedRanking]:
    """Give each model's ranking of a shelf: at random, by scorers, two sums, and an engine."""
    parts = [scored[name] for name in SUMMED]
    scores = {
        RANDOM: np.zeros(shelf.taken.shape),
        **{name: one.log_probabilities for name, one in scored.items()},
        "Sum of three": np.sum([standardised(one.raw) for one in parts], axis=0),
        "Sum of three log-probabilities": np.sum(
            [standardised(one.log_probabilities) for one in parts], axis=0
        ),
        ENGINE: of_engine,
    }
    return {name: TiedRanking.of(one, shelf.taken) for name, one in scores.items()}


@dataclass(frozen=True, eq=False)
class ShelfResult:
    """NDCG@10 of a model on a shelf.

    Attributes
    ----------
    user_ids, values
        (n_people,) of each list.
    resampled
        (draws, 2) see `TiedRanking.resampled`.
    n_items
        Of the shelf.
    """

    user_ids: list[str]
    values: FloatArray
    resampled: FloatArray
    n_items: int


def shelf_results(
    shelf: LaunchShelf, scored: Mapping[str, ShelfScores], of_engine: FloatArray, seed: int
) -> dict[str, ShelfResult]:
    """Measure each model on a shelf; its items are drawn again with the seed."""
    return {
        name: ShelfResult(
            shelf.user_ids, ranking.ndcg(), ranking.resampled(ITEM_DRAWS, seed), len(shelf.items)
        )
        for name, ranking in rankings(shelf, scored, of_engine).items()
    }


def result_rows(split: str, shelves: Sequence[Mapping[str, ShelfResult]]) -> Iterator[Row]:
    """Give the rows of each model's lists for one or several shelves."""
    for model in shelves[0]:
        results = [shelf[model] for shelf in shelves]
        keys = _keys(split, model)
        values = np.concatenate([one.values for one in results])
        user_ids = [user for one in results for user in one.user_ids]
        yield people_row(keys, METRIC, values, user_ids)
        yield items_row(keys, results)
        if model not in (RANDOM, POPULAR):
            popular = np.concatenate([shelf[POPULAR].values for shelf in shelves])
            yield people_row(keys, f"{METRIC} above {POPULAR}", values - popular, user_ids)


def people_row(keys: Row, metric: str, values: FloatArray, user_ids: Sequence[str]) -> Row:
    """Give the mean over lists, with an interval over people: all of a person's are drawn."""
    person, _ = pd.factorize(np.asarray(user_ids))
    sums = np.stack((np.bincount(person, values), np.bincount(person)), axis=1)
    means = resampled_means(sums.astype(np.float64), DRAWS)
    low, high = percentile_interval(means[:, 0] / means[:, 1])
    return value_row(keys, metric, float(values.mean()), len(values)) | {"low": low, "high": high}


def items_row(keys: Row, results: Sequence[ShelfResult]) -> Row:
    """Give the mean over lists, with an interval over the shelves' items.

    Items that are drawn again are in a list twice, which moves the mean: the interval is that of
    the draws, moved by the value less their mean.
    """
    value = float(np.concatenate([one.values for one in results]).mean())
    sums = np.sum([one.resampled for one in results], axis=0)
    means = sums[:, 0] / sums[:, 1]
    low, high = percentile_interval(means + value - means.mean())
    row = value_row(keys, f"{METRIC} over items", value, sum(one.n_items for one in results))
    return row | {"low": low, "high": high}


def seconds_rows(split: str, scored: Mapping[str, ShelfScores]) -> Iterator[Row]:
    """Give the processor's seconds of each fit, its title vectors included."""
    for model, one in scored.items():
        yield value_row(_keys(split, model), "fit_cpu_seconds", one.seconds, 1)


def _keys(split: str, model: str) -> Row:
    name = f"{split} / launch"
    return {"dataset": "online-retail", "split": name, "model": model, "seeds": [0]}


def main() -> None:
    """Measure all shelves and write the table."""
    path = os.environ.get(VARIABLE)
    if not path:
        sys.exit(f"Set {VARIABLE} to the path of the published Online Retail (.xlsx or a table).")
    dataset = load_dataset(path)
    results: dict[str, dict[str, ShelfResult]] = {}
    for seed, start in enumerate(start for starts in STARTS.values() for start in starts):
        shelf = LaunchShelf.of(dataset, start)
        scored = {name: ShelfScores.of(shelf, make) for name, make in SCORERS.items()}
        results[start] = shelf_results(shelf, scored, engine_scores(shelf), seed)
        print(f"{start}: {len(shelf.items)} items, {len(shelf.histories)} people", flush=True)
    rows: list[Row] = []
    for split in ("test", "validation"):
        rows += result_rows(split, [results[one] for one in STARTS[split]])
    rows += result_rows("all", list(results.values()))
    for one, found in results.items():
        rows += result_rows(one, [found])
    record_results("ranking/launches", [*rows, *seconds_rows(start, scored)])


if __name__ == "__main__":
    main()
