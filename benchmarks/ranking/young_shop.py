"""Lists of a young shop: engines with and without text, fitted on a log of few people.

People are drawn at random, with all that they did: 30, 100, 300, 1,000, 3,000, or everybody, three
times each. Lists are of items that a person has not taken yet, for the last two periods of the log
(the last one where periods are counted in events), for everybody who took something before and
something new in the period.
Engines "without text" leave out the scorers that know titles. Where categories are clusters of
titles a forecast knows titles, too: "without titles" is their list without the tilt of the
forecast, and so without what that knows by counts. Beside them stand single scorers, with and
without text, fitted on the same log. An engine whose log is too small for its effort has what the
log is large enough for. What forecasts gain, for the same people, is on counting fitted on the last
period.
Intervals are over people, those of several draws and tests together.

Run: python -m benchmarks.ranking.young_shop --data online-retail
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from benchmarks.harness.engines import EFFORTS
from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import LOG_TITLES, WITHOUT_TEXT, WITHOUT_TITLES, engine_label
from benchmarks.harness.logs import benchmark_dataset
from benchmarks.harness.results import record_results
from benchmarks.ranking.launches import people_row
from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, Window
from llmrec.data.splits import EvaluationSplits, past_windows, sample_windows, training_log_for
from llmrec.data.windows import MIN_FIT_WINDOWS, make_windows
from llmrec.engine import InterestEngine
from llmrec.engine_settings import Effort
from llmrec.errors import DataError
from llmrec.forecast import ItemScorer
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.precomputed import predict_weights
from llmrec.metrics import log_loss, ndcg_at
from llmrec.ranking.registry import build_scorer, text_scorers
from llmrec.types import FloatArray, IntArray

SIZES = (30, 100, 300, 1_000, 3_000, 0)  # 0: everybody
DRAWS = 3
MAX_LISTS = 1_000
PEERS = ("RecentPopularity", "SparseEaseByDays", "SparseEaseByEvents", "Cosine", "ImplicitALS")
TEXT_PEERS = ("TitleKernel", "TextPopularity", "EaseByText", "EaseWithText")
K = 10
GAIN = "log-loss gain on counting"
Values = dict[str, FloatArray]  # by model, (n_lists,)


def draw_people(dataset: Dataset, n: int, seed: int) -> Dataset:
    """Give the dataset of n people, drawn at random; all of them if n is 0."""
    if not n:
        return dataset
    log = dataset.log
    drawn = np.random.default_rng(seed).permutation(log.n_users)[:n]
    kept = np.isin(log.user_idx, drawn)
    return replace(dataset, log=log.drop_events({"of people not drawn": ~kept}))


def test_values(
    dataset: Dataset, windows: Sequence[Window], efforts: Sequence[Effort]
) -> tuple[list[str], Values, Values]:
    """NDCG@10 of each model on windows, and whose they are; what engines' forecasts gain."""
    before = training_log_for(windows)
    known = replace(dataset, log=before, item_rows=None, title_categories=None)
    chosen = sample_windows(windows, MAX_LISTS)
    histories = [window.history for window in chosen]
    relevant = [np.setdiff1d(w.target.item_idx, w.history.item_idx) for w in chosen]
    found, gains = dict[str, FloatArray](), dict[str, FloatArray]()
    places = {item: place for place, item in enumerate(known.catalog.item_ids)}
    targets = target_counts(chosen)
    counted = log_loss(_counting(known).category_weights(histories), targets)
    engine = InterestEngine.from_pretrained(data=known, model=None, refit=True)
    for effort, text in product(efforts, ("", WITHOUT_TEXT)):
        without = text_scorers(known.catalog) if text else ()
        if without or effort != "quick":
            engine.fit(effort, without=without)
        lists = engine.recommend_many(histories, K, causes=False)
        ranked = [np.array([places[one.item_id] for one in listed]) for listed in lists]
        found[engine_label(effort) + text] = _ndcg(ranked, relevant)
        if text and dataset.title_categories is not None:
            found[engine_label(effort) + WITHOUT_TITLES] = _ndcg_by(
                engine.blend, histories, relevant
            )
        if not text:
            weights = predict_weights(engine.prior, histories)
            gains[engine_label(effort)] = counted - log_loss(weights, targets)
    for name in (*PEERS, *TEXT_PEERS):
        found[name] = _ndcg_by(build_scorer(name, before, known.catalog), histories, relevant)
    defined = np.isfinite(found["RecentPopularity"])
    users = [h.user_id for h, keep in zip(histories, defined, strict=True) if keep]
    found, gains = ({name: one[defined] for name, one in each.items()} for each in (found, gains))
    return users, found, gains


def _counting(known: Dataset) -> DecayedDirichlet:
    """Fit counting on the last period; on too few windows it has default settings."""
    folds = past_windows(known)
    windows = folds[0] if folds else []
    return (
        DecayedDirichlet().fit(windows) if len(windows) >= MIN_FIT_WINDOWS else DecayedDirichlet()
    )


def _ndcg_by(
    scorer: ItemScorer, histories: Sequence[History], relevant: Sequence[IntArray]
) -> FloatArray:
    """NDCG@10 of lists by a scorer alone, of items not taken yet."""
    scores = scorer.scores(histories)
    for row, history in zip(scores, histories, strict=True):
        row[history.item_idx] = -np.inf
    return _ndcg(list(np.argsort(-scores, axis=1, kind="stable")[:, :K]), relevant)


def _ndcg(ranked: Sequence[IntArray], relevant: Sequence[IntArray]) -> FloatArray:
    pairs = zip(ranked, relevant, strict=True)
    return np.array([ndcg_at(K, items, wanted) for items, wanted in pairs])


def size_rows(
    dataset: str, size: int, users: Sequence[str], values: Values, gains: Values
) -> Iterator[Row]:
    """Give the rows of one size: each model, and what engines with text have above each."""
    keys: Row = {"dataset": dataset, "split": f"young shop / {size or 'everybody'}"}
    keys["seeds"] = [*range(DRAWS)] if size else [0]
    for model, each in values.items():
        yield people_row(keys | {"model": model}, f"ndcg@{K}", each, users)
    for engine, gain in gains.items():
        yield people_row(keys | {"model": engine}, GAIN, gain, users)
        for model, each in values.items():
            if model != engine:
                above = values[engine] - each
                yield people_row(keys | {"model": engine}, f"ndcg@{K} above {model}", above, users)


def main() -> None:
    """Measure all sizes of a log, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=[*LOG_TITLES], required=True)
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES, help="0: everybody")
    parser.add_argument("--efforts", nargs="*", choices=EFFORTS, default=["quick"])
    arguments = parser.parse_args()
    whole = replace(benchmark_dataset(arguments.data), repeat="exclude")
    rows: list[Row] = []
    for size in arguments.sizes:
        if size >= whole.log.n_users:
            continue
        users, values, gains = _draws(whole, size, arguments.efforts)
        if users:
            rows += size_rows(arguments.data, size, users, values, gains)
            print(f"{size or 'everybody'}: {len(users)} lists", flush=True)
    record_results(f"ranking/young_shop_{arguments.data}", rows)


def _draws(
    whole: Dataset, size: int, efforts: Sequence[Effort]
) -> tuple[list[str], Values, Values]:
    """Put the lists of all draws and tests of one size together."""
    users, parts = list[str](), list[tuple[Values, Values]]()
    for seed in range(DRAWS if size else 1):
        try:
            splits = EvaluationSplits.of(draw_people(whole, size, seed))
        except DataError as error:  # too few events for a test
            print(f"{size}, draw {seed}: {error}", flush=True)
            continue
        for windows in filter(None, _tests(splits)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of logs too small for an effort
                whose, found, gains = test_values(splits.dataset, windows, efforts)
            users += whose
            parts.append((found, gains))
    return users, _join([part[0] for part in parts]), _join([part[1] for part in parts])


def _tests(splits: EvaluationSplits) -> list[list[Window]]:
    """Give the windows of everybody who took anything before, and in a test period."""
    if splits.grid is None:
        return [*splits.tests.values()]
    dataset, cutoffs = splits.dataset, splits.grid[-3:-1]
    log, catalog = dataset.log, dataset.catalog
    return [make_windows(log, catalog, dataset.period, cutoff) for cutoff in cutoffs]


def _join(parts: Sequence[Values]) -> Values:
    names = parts[0] if parts else ()
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


if __name__ == "__main__":
    main()
