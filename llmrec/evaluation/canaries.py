"""Made-up people with a secret in a copy of a log, and whether a list tells it to somebody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.engine import InterestEngine
from llmrec.engine_settings import Effort
from llmrec.types import IntArray, TimeArray

LIST = "list"
PREFIX_LENGTH = 5  # items before the secret
N_ALTERNATIVES = 1_000  # items that the secret is ranked among, all if there are fewer


@dataclass(frozen=True)
class CanaryResult:
    """What became of the secrets of made-up people.

    Attributes
    ----------
    n_canaries
        People who were added to the log, each with some items and one that nobody took with them.
    n_extracted
        Secrets that stand first for somebody else with the same items, and do not where the person
        was not in the log.
    median_rank, median_rank_without
        Of the secrets among ``n_ranked`` items, with the people in the log and without.
    members
        Scorer of the list to how many secrets it puts first by itself, as above.
    """

    n_canaries: int
    n_extracted: int
    median_rank: float
    median_rank_without: float
    n_ranked: int
    members: Mapping[str, int]


def plant_canaries(
    dataset: Dataset, effort: Effort, n_canaries: int = 100, seed: int = 0
) -> CanaryResult:
    """Fit an engine with made-up people in the log, and one without, and look for their secrets.

    Each takes five items at random and then one more, a day apart, in the last week of the log.
    The question is asked with a person whom no engine knows, who took the same five.
    """
    log = dataset.log.align_to(dataset.catalog)
    rng = np.random.default_rng(seed)
    taken = np.unique(log.item_idx)
    items = np.stack([rng.choice(taken, PREFIX_LENGTH + 1, False) for _ in range(n_canaries)])
    end = log.timestamp.max()
    times = end - np.arange(PREFIX_LENGTH, -1, -1).astype("timedelta64[D]")
    planted = replace(dataset, log=add_people(log, items, times, dataset.catalog), item_rows=None)
    others = np.stack([_alternatives(rng, taken, row) for row in items])
    ranks = []
    for data in (planted, replace(dataset, item_rows=None)):
        engine = InterestEngine.from_pretrained(data=data, model=None).fit(effort, seed=seed)
        ranks.append(_ranks(engine, items, others, times))
    first = {
        name: int(((ranks[0][name] == 1) & (ranks[1][name] > 1)).sum())
        for name in ranks[0].keys() & ranks[1].keys()
    }
    with_them, without = (float(np.median(one[LIST])) for one in ranks)
    members = {name: n for name, n in sorted(first.items()) if name != LIST}
    n_ranked = others.shape[1] + 1
    return CanaryResult(n_canaries, first[LIST], with_them, without, n_ranked, members)


def add_people(
    log: Interactions, items: IntArray, times: TimeArray, catalog: Catalog
) -> Interactions:
    """Give the log with people who take the (n_people, n) items at the (n,) times."""
    before = pd.DataFrame(
        {
            "user_id": log.user_ids[log.user_idx],
            "item_id": log.item_ids[log.item_idx],
            "timestamp": log.timestamp,
        }
    )
    added = [_events(f"canary-{person:04d}", log, row, times) for person, row in enumerate(items)]
    whole = pd.concat([before, *added], ignore_index=True)
    found = Interactions.from_frame(whole, bot_events_per_day=None, keep_outliers=True)
    return replace(found.align_to(catalog), day_first=log.day_first)


def _events(user_id: str, log: Interactions, items: IntArray, times: TimeArray) -> pd.DataFrame:
    ids = log.item_ids[items]
    return pd.DataFrame({"user_id": user_id, "item_id": ids, "timestamp": times[: len(items)]})


def _alternatives(rng: np.random.Generator, taken: IntArray, items: IntArray) -> IntArray:
    """Draw items that a secret is ranked among: of all that were taken, but its own person's."""
    rest = np.setdiff1d(taken, items)
    return rng.choice(rest, min(N_ALTERNATIVES - 1, len(taken) - PREFIX_LENGTH - 1), False)


def _ranks(
    engine: InterestEngine, items: IntArray, others: IntArray, times: TimeArray
) -> dict[str, IntArray]:
    """(n_canaries,) rank of each secret for a stranger: in the list, and by each of its scorers."""
    log, prefixes = engine.dataset.log, items[:, :PREFIX_LENGTH]
    frames = [_events("a stranger", log, row, times) for row in prefixes]
    ranks: dict[str, list[int]] = {}
    for place, session in engine.sessions(frames, words=False):
        history, ranking = session.history, session.ranking()
        listed = np.full(engine.dataset.catalog.n_items, -np.inf)
        listed[ranking.item_idx] = ranking.scores
        parts = dict(zip(engine.blend.names, engine.blend.weighted_scores([history]), strict=True))
        for name, scores in {LIST: listed, **{name: one[0] for name, one in parts.items()}}.items():
            above = scores[others[place]] >= scores[items[place, -1]]  # ties tell nothing
            ranks.setdefault(name, []).append(1 + int(above.sum()))
    return {name: np.array(found) for name, found in ranks.items()}
