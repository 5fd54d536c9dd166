"""Lists of a young shop: engines with and without text, fitted on a log of few people.

People are drawn at random, with all that they did: 30, 100, 300, 1,000, 3,000, or everybody, three
times each. Lists are of items that a person has not taken yet, for the last two periods of the log
(the last one where periods are counted in events), for everybody drawn who has a test window.
"With text" is effort quick; "without" leaves out the scorers that know titles. Both are compared
with popularity, item-to-item EASE and trees, on the same people. Intervals are over people, those
of several draws and tests together.

Run: python -m benchmarks.ranking.young_shop --data online-retail
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.harness.formatting import Row
from benchmarks.harness.labels import LOG_TITLES, QUICK
from benchmarks.harness.logs import benchmark_dataset
from benchmarks.harness.results import record_results
from benchmarks.ranking.launches import people_row
from llmrec.data.dataset import Dataset
from llmrec.data.periods import Window
from llmrec.data.splits import EvaluationSplits, sample_windows, training_log_for
from llmrec.engine import InterestEngine
from llmrec.errors import DataError
from llmrec.metrics import ndcg_at
from llmrec.ranking.fitted import FittableScorer
from llmrec.ranking.registry import SCORERS, text_scorers
from llmrec.types import FloatArray, IntArray

SIZES = (30, 100, 300, 1_000, 3_000, 0)  # 0: everybody
DRAWS = 3
MAX_LISTS = 1_000
WITH, WITHOUT = QUICK, f"{QUICK} without text"
PEERS = ("RecentPopularity", "SparseEaseByDays", "SparseEaseByEvents", "Cosine", "ImplicitALS")
K = 10


def draw_people(dataset: Dataset, n: int, seed: int) -> Dataset:
    """Give the dataset of n people, drawn at random; all of them if n is 0."""
    if not n:
        return dataset
    log = dataset.log
    drawn = np.random.default_rng(seed).permutation(log.n_users)[:n]
    kept = np.isin(log.user_idx, drawn)
    return replace(dataset, log=log.drop_events({"of people not drawn": ~kept}))


def test_values(
    dataset: Dataset, windows: Sequence[Window], peers: bool
) -> tuple[list[str], dict[str, FloatArray]]:
    """(n_lists,) NDCG@10 of each model on windows, and whose they are."""
    before = training_log_for(windows)
    known = replace(dataset, log=before, item_rows=None, title_categories=None)
    chosen = sample_windows(windows, MAX_LISTS)
    histories = [window.history for window in chosen]
    relevant = [np.setdiff1d(w.target.item_idx, w.history.item_idx) for w in chosen]
    found = {}
    for label, without in ((WITH, ()), (WITHOUT, text_scorers(known.catalog))):
        engine = InterestEngine.from_pretrained(data=known, model=None, refit=True, describe=False)
        if without:
            engine.fit("quick", without=without)
        lists = engine.recommend_many(histories, K, causes=False)
        items = known.catalog.item_ids
        places = {item: place for place, item in enumerate(items)}
        ranked = [np.array([places[one.item_id] for one in listed]) for listed in lists]
        found[label] = _ndcg(ranked, relevant)
    for name in PEERS if peers else ():
        scorer = SCORERS[name]()
        if isinstance(scorer, FittableScorer):
            scorer = scorer.fit(before, known.catalog)
        scores = scorer.scores(histories)
        for row, history in zip(scores, histories, strict=True):
            row[history.item_idx] = -np.inf
        found[name] = _ndcg(list(np.argsort(-scores, axis=1, kind="stable")[:, :K]), relevant)
    defined = np.isfinite(found[WITH])
    users = [h.user_id for h, keep in zip(histories, defined, strict=True) if keep]
    return users, {name: values[defined] for name, values in found.items()}


def _ndcg(ranked: Sequence[IntArray], relevant: Sequence[IntArray]) -> FloatArray:
    pairs = zip(ranked, relevant, strict=True)
    return np.array([ndcg_at(K, items, wanted) for items, wanted in pairs])


def size_rows(
    dataset: str, size: int, users: Sequence[str], values: Mapping[str, FloatArray]
) -> Iterator[Row]:
    """Give the rows of one size: each model, and what the engine with text has above each."""
    split = f"young shop / {size or 'everybody'}"
    for model, each in values.items():
        keys: Row = {"dataset": dataset, "split": split, "model": model, "seeds": [*range(DRAWS)]}
        yield people_row(keys, f"ndcg@{K}", each, users)
        if model != WITH:
            with_keys = keys | {"model": WITH}
            yield people_row(with_keys, f"ndcg@{K} above {model}", values[WITH] - each, users)


def main() -> None:
    """Measure all sizes of a log, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=[*LOG_TITLES], required=True)
    parser.add_argument("--sizes", nargs="*", type=int, default=SIZES, help="0: everybody")
    arguments = parser.parse_args()
    whole = replace(benchmark_dataset(arguments.data), repeat="exclude")
    rows: list[Row] = []
    for size in arguments.sizes:
        if size >= whole.log.n_users:
            continue
        users, values = _draws(whole, size)
        if users:
            rows += size_rows(arguments.data, size, users, values)
            print(f"{size or 'everybody'}: {len(users)} lists", flush=True)
    record_results(f"ranking/young_shop_{arguments.data}", rows)


def _draws(whole: Dataset, size: int) -> tuple[list[str], dict[str, FloatArray]]:
    """Put the lists of all draws and tests of one size together."""
    users, parts = list[str](), list[dict[str, FloatArray]]()
    for seed in range(DRAWS if size else 1):
        try:
            splits = EvaluationSplits.of(draw_people(whole, size, seed))
        except DataError as error:  # too few events for a test
            print(f"{size}, draw {seed}: {error}", flush=True)
            continue
        for windows in splits.tests.values():
            if not windows:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of logs too small for an effort
                whose, found = test_values(splits.dataset, windows, peers=True)
            users += whose
            parts.append(found)
    names = parts[0] if parts else ()
    return users, {name: np.concatenate([part[name] for part in parts]) for name in names}


if __name__ == "__main__":
    main()
