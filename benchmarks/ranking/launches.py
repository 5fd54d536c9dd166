"""New items of three logs, ranked among themselves by their titles, and through an engine.

A shelf is of 28 days, see `benchmarks.ranking.shelves`: "launch" has what is first taken in them,
before anybody has taken one of these items, "new" what was first taken in the eight weeks before.
It is ranked for everybody who takes some of it in that time and has a past; scorers and engine are
fitted on what precedes it. The last two shelves of a log are the tests. NDCG@10 is an expectation
where scores are equal. Intervals are over people, those of "ndcg@10 over items" over the items of
the shelves. Logs may have few such items, or none: rows of "Shelves" say how many.

Run: python -m benchmarks.ranking.launches --data online-retail
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import LOG_TITLES, ONLINE_RETAIL, QUICK
from benchmarks.harness.logs import benchmark_dataset
from benchmarks.harness.new_item_tables import POPULAR, SHELVES, launches_name
from benchmarks.harness.results import record_results, value_row
from benchmarks.ranking.shelves import ItemShelf, ShelfKind, shelf_starts, shelves_from
from benchmarks.ranking.tied_ndcg import TiedRanking
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.engine import InterestEngine
from llmrec.metrics import percentile_interval, resampled_means
from llmrec.ranking.item_item import ItemToItem
from llmrec.ranking.scorers import RecentPopularity
from llmrec.ranking.text_ease import EaseByText
from llmrec.ranking.text_factors import FactorsFromText
from llmrec.ranking.text_scorers import TextPopularity, TitleKernel
from llmrec.types import FloatArray, Shelf

DRAWS = 2_000  # of people
ITEM_DRAWS = 1_000
METRIC = "ndcg@10"
RANDOM, TAKEN_LATELY, ENGINE = "Random", "RecentPopularity", QUICK
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
class FittedScorer:
    """A scorer that was fitted before shelves begin.

    Attributes
    ----------
    scorer, catalog
        Itself, and the catalog that it was fitted with.
    seconds
        Of the processor, to fit.
    """

    scorer: TextScorer
    catalog: Catalog
    seconds: float

    @classmethod
    def fit(
        cls, known: Dataset, start: np.datetime64, make: Callable[[], TextScorer]
    ) -> FittedScorer:
        """Fit a scorer on what is known before a start."""
        # Title vectors are cached by catalog: each scorer is to find its own.
        catalog = replace(known.catalog)
        began = time.process_time()
        scorer = make().fit(known.log, catalog, start)
        return cls(scorer, catalog, time.process_time() - began)


@dataclass(frozen=True, eq=False)
class ShelfScores:
    """What a fitted scorer says of a shelf.

    Attributes
    ----------
    log_probabilities, raw
        (n_people, n_shelf) of `scores` and of `raw_scores`.
    """

    log_probabilities: FloatArray
    raw: FloatArray

    @classmethod
    def of(cls, shelf: ItemShelf, fitted: FittedScorer) -> ShelfScores:
        """Score a shelf by what was fitted before it."""
        histories = [replace(history, catalog=fitted.catalog) for history in shelf.histories]
        scores, raw = fitted.scorer.scores(histories), fitted.scorer.raw_scores(histories)
        return cls(scores[:, shelf.items], raw[:, shelf.items])


def standardised(scores: FloatArray) -> FloatArray:
    """(n_people, n_shelf) each person's scores over the shelf with mean 0 and deviation 1.

    -inf counts as the person's smallest score; equal scores give 0.
    """
    least = np.where(np.isfinite(scores), scores, np.inf).min(axis=1, keepdims=True)
    centred = np.maximum(scores, np.where(np.isfinite(least), least, 0.0))
    centred -= centred.mean(axis=1, keepdims=True)
    deviation = centred.std(axis=1, keepdims=True)
    return np.asarray(centred / np.where(deviation > 1e-12, deviation, 1.0))


def engine_before(known: Dataset, start: np.datetime64) -> InterestEngine:
    """Fit an engine with effort "quick" on what is known before shelves begin."""
    # What is known of the new items is given apart from the log, which does not name them yet.
    apart = replace(known, item_rows=None, title_categories=None)
    return InterestEngine.from_pretrained(data=apart, cutoff=start, model=None, refit=True)


def engine_scores(engine: InterestEngine, shelf: ItemShelf) -> FloatArray:
    """(n_people, n_shelf) scores in an engine's lists: those of new items alone, or of all items.

    Items that nobody has taken have lists of their own; those taken lately are among all others.
    """
    listed: Shelf = "new" if shelf.kind == "launch" else "all"
    found = np.empty(shelf.taken.shape)
    for row, user in zip(found, shelf.user_ids, strict=True):
        ranking = engine.session(user, shelf=listed, repeat="exclude").ranking()
        scores = np.full(engine.dataset.catalog.n_items, -np.inf)
        scores[ranking.item_idx] = ranking.scores
        row[:] = scores[shelf.items]
    return found


def rankings(
    shelf: ItemShelf, scored: Mapping[str, ShelfScores], of_engine: FloatArray
) -> dict[str, TiedRanking]:
    """Give each model's ranking of a shelf: at random, by scorers, two sums, and an engine."""
    parts = [scored[name] for name in SUMMED]
    scores = {RANDOM: np.zeros(shelf.taken.shape)}
    if shelf.kind == "new":
        scores[TAKEN_LATELY] = RecentPopularity().scores(shelf.histories)[:, shelf.items]
    scores |= {
        **{name: one.log_probabilities for name, one in scored.items()},
        "Sum of three": np.sum([standardised(one.raw) for one in parts], axis=0),
        "Sum of three log-probabilities": np.sum(
            [standardised(one.log_probabilities) for one in parts], axis=0
        ),
        ENGINE: of_engine,
    }
    return {
        name: TiedRanking.of(np.where(shelf.had, -np.inf, one), shelf.taken)
        for name, one in scores.items()
    }


@dataclass(frozen=True, eq=False)
class ShelfResult:
    """NDCG@10 of a model on a shelf.

    Attributes
    ----------
    values
        (n_people,) of each list.
    resampled
        (draws, 2) see `TiedRanking.resampled`.
    """

    values: FloatArray
    resampled: FloatArray


@dataclass(frozen=True, eq=False)
class MeasuredShelf:
    """A shelf's size, and how well each model ranks it.

    Attributes
    ----------
    n_items, user_ids
        How many items it has, and the (n_people,) whom it is ranked for.
    models
        Result by name; none where there is nobody to rank for.
    """

    n_items: int
    user_ids: list[str]
    models: dict[str, ShelfResult]

    @classmethod
    def of(
        cls,
        shelf: ItemShelf,
        fitted: Mapping[str, FittedScorer],
        engine: InterestEngine,
        seed: int,
    ) -> MeasuredShelf:
        """Measure each model on a shelf; its items are drawn again with the seed."""
        if not shelf.histories:
            return cls(len(shelf.items), [], {})
        scored = {name: ShelfScores.of(shelf, one) for name, one in fitted.items()}
        found = {
            name: ShelfResult(ranking.ndcg(), ranking.resampled(ITEM_DRAWS, seed))
            for name, ranking in rankings(shelf, scored, engine_scores(engine, shelf)).items()
        }
        return cls(len(shelf.items), shelf.user_ids, found)


def result_rows(keys: Row, shelves: Sequence[MeasuredShelf]) -> Iterator[Row]:
    """Give the sizes of one or several shelves, and the rows of each model's lists for them.

    ``keys``: dataset, split and seeds.
    """
    users = [user for shelf in shelves for user in shelf.user_ids]
    sizes = {"items": sum(shelf.n_items for shelf in shelves), "lists": len(users)}
    for metric, size in (sizes | {"people": len(set(users))}).items():
        yield value_row(keys | {"model": SHELVES}, metric, float(size), len(shelves))
    measured = [shelf for shelf in shelves if shelf.models]
    for model in measured[0].models if measured else ():
        own = keys | {"model": model}
        values = np.concatenate([shelf.models[model].values for shelf in measured])
        yield people_row(own, METRIC, values, users)
        yield items_row(own, measured, model)
        if model not in (RANDOM, POPULAR):
            popular = np.concatenate([shelf.models[POPULAR].values for shelf in measured])
            yield people_row(own, f"{METRIC} above {POPULAR}", values - popular, users)


def people_row(keys: Row, metric: str, values: FloatArray, user_ids: Sequence[str]) -> Row:
    """Give the mean over lists, with an interval over people: all of a person's are drawn."""
    person, _ = pd.factorize(np.asarray(user_ids))
    sums = np.stack((np.bincount(person, values), np.bincount(person)), axis=1)
    means = resampled_means(sums.astype(np.float64), DRAWS)
    low, high = percentile_interval(means[:, 0] / means[:, 1])
    return value_row(keys, metric, float(values.mean()), len(values)) | {"low": low, "high": high}


def items_row(keys: Row, shelves: Sequence[MeasuredShelf], model: str) -> Row:
    """Give the mean over lists, with an interval over the shelves' items.

    Items that are drawn again are in a list twice, which moves the mean: the interval is that of
    the draws, moved by the value less their mean. Draws that leave nobody a list are left out.
    """
    results = [shelf.models[model] for shelf in shelves]
    value = float(np.concatenate([one.values for one in results]).mean())
    sums = np.sum([one.resampled for one in results], axis=0)
    sums = sums[sums[:, 1] > 0]
    means = sums[:, 0] / sums[:, 1]
    low, high = percentile_interval(means + value - means.mean())
    n_items = sum(shelf.n_items for shelf in shelves)
    row = value_row(keys, f"{METRIC} over items", value, n_items)
    return row | {"low": low, "high": high}


def measure(
    dataset: Dataset, start: np.datetime64, seed: int
) -> tuple[dict[ShelfKind, MeasuredShelf], dict[str, float]]:
    """Measure both kinds of shelves from a day on; and the processor's seconds of each fit.

    These have the title vectors included, and are none where nobody is ranked for.
    """
    shelves = shelves_from(dataset, start)
    known = shelves["launch"].known
    if not any(shelf.histories for shelf in shelves.values()):
        return {k: MeasuredShelf(len(one.items), [], {}) for k, one in shelves.items()}, {}
    fitted = {name: FittedScorer.fit(known, start, make) for name, make in SCORERS.items()}
    engine = engine_before(known, start)
    found = {kind: MeasuredShelf.of(shelf, fitted, engine, seed) for kind, shelf in shelves.items()}
    return found, {name: one.seconds for name, one in fitted.items()}


def shelf_rows(dataset: Dataset, name: str) -> Iterator[Row]:
    """Give the rows of all shelves of a log: those of each split, all together, and one by one."""
    starts = shelf_starts(dataset.log)
    found = dict[np.datetime64, dict[ShelfKind, MeasuredShelf]]()
    seconds = dict[str, float]()
    for seed, start in enumerate(start for each in starts.values() for start in each):
        found[start], seconds = measure(dataset, start, seed)
        for kind, one in found[start].items():
            print(f"{start}, {kind}: {one.n_items} items, {len(one.user_ids)} people", flush=True)
    groups = {"test": starts["test"], "validation": starts["validation"], "all": [*found]}
    groups |= {str(start): [start] for start in found}
    kinds: tuple[ShelfKind, ...] = ("launch", "new")
    for kind in kinds:
        for split, chosen in groups.items():
            keys: Row = {"dataset": name, "split": f"{split} / {kind}", "seeds": [0]}
            if chosen:
                yield from result_rows(keys, [found[start][kind] for start in chosen])
    for model, each in seconds.items():  # of the last start
        keys = {"dataset": name, "split": f"{start} / launch", "model": model, "seeds": [0]}
        yield value_row(keys, "fit_cpu_seconds", each, 1)


def main() -> None:
    """Measure all shelves of a log, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=[*LOG_TITLES], default=ONLINE_RETAIL)
    name = parser.parse_args().data
    rows = list(shelf_rows(benchmark_dataset(name), name))
    record_results(launches_name(name), rows)


if __name__ == "__main__":
    main()
