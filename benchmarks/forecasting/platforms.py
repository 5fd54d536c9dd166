"""What does a past on one platform say of another? Complete Journey, cut into two by department.

"drug" has the categories whose products are mostly of `DRUG_DEPARTMENTS`, "grocery" all others.
For each side a random half of the people of both is held out: before a test period begins their
events of that side are removed, and its mix in that period is forecast from the other side. Half of
the rest is cut off likewise before the validation period, so that whatever is chosen there is
chosen for such people. Gains are in nats per event over the population's mix of the side in the
last period, lists are of the side's items. Intervals are over people.

"CategoryEASE within" is what it predicts alone within the side, mixed with the population's mix of
the side: the forecasters themselves are tuned on the mix of both sides.

Run: python -m benchmarks.forecasting.platforms
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.formatting import Row
from benchmarks.harness.results import record_results
from benchmarks.ranking.launches import people_row
from llmrec.data.calendar import period_boundaries
from llmrec.data.counts import row_shares, target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.embedded import log_folder
from llmrec.data.formats import title_case
from llmrec.data.periods import History, Window
from llmrec.data.readers import load_dataset
from llmrec.data.splits import split_windows, training_windows
from llmrec.data.windows import make_windows
from llmrec.forecast import Forecaster
from llmrec.forecasters.calibration import fit_interpolation, interpolate
from llmrec.forecasters.collaborative import POWERS, CategoryEASE
from llmrec.forecasters.counting import population_mix
from llmrec.forecasters.registry import ForecasterRegistry
from llmrec.metrics import log_loss, ndcg_at
from llmrec.ranking.blend import Blend
from llmrec.ranking.item_item import Ease, ItemToItem
from llmrec.ranking.ranking import rank
from llmrec.ranking.scorers import RecentPopularity
from llmrec.types import FloatArray, TimeArray

DRUG_DEPARTMENTS = (
    *("DRUG GM", "COSMETICS", "GARDEN CENTER", "GM MERCH EXP", "TRAVEL & LEISURE"),
    *("AUTOMOTIVE", "PHOTO & VIDEO", "TOYS", "ELECT &PLUMBING"),
)
FORECASTERS = (
    *("DecayedDirichlet", "GlobalDrift", "CategoryMarkov"),
    *("CategoryEASE", "NeighbouringUsers", "RidgeAutoregression"),
)
EASE_WITHIN = "CategoryEASE within"
Mix = Callable[[Sequence[Window]], FloatArray]
REGULARIZATIONS = (100.0, 300.0, 1_000.0, 3_000.0)
WEIGHTS = (0.0, 0.1, 0.25, 0.5, 1.0)  # of EASE beside popularity
MIN_PERIODS = 3
K = 10


def load_platforms() -> Dataset:
    """Read Complete Journey as two platforms, joined."""
    whole = load_dataset("completejourney")
    products = pd.read_parquet(log_folder("completejourney") / "products.parquet")
    columns = ["product_category", "department"]
    counts = products[columns].dropna().value_counts().rename("n").reset_index()
    counts = counts.sort_values(["n", "department"], ascending=[False, True], kind="stable")
    mostly = counts.drop_duplicates("product_category")
    of_drug = mostly["product_category"][mostly["department"].isin(DRUG_DEPARTMENTS)]
    drug = set(map(title_case, of_drug)) & set(whole.catalog.categories)
    grocery = set(whole.catalog.categories) - drug
    sides = {"grocery": whole.without_categories(drug), "drug": whole.without_categories(grocery)}
    return Dataset.join(sides)


def cut_off(dataset: Dataset, side: str, people: Iterable[str], cutoff: np.datetime64) -> Dataset:
    """Give the dataset without what these people took of a side before a cutoff."""
    log = dataset.log
    is_cut = log.user_ids.isin(list(people))[log.user_idx] & (log.timestamp < cutoff)
    is_cut &= np.isin(log.item_idx, dataset.platforms.items(side))
    return replace(dataset, log=log.drop_events({f"cut off from {side}": is_cut}))


@dataclass(frozen=True, eq=False)
class Side:
    """One side of the joined log, and the people who are cut off from it.

    Attributes
    ----------
    dataset
        The joined log, whole.
    name
        Of the platform.
    grid
        Bounds of the periods; the last three whole ones are validation and two tests.
    tuned, held_out
        Ids of the people who are cut off before validation, and before the test.
    """

    dataset: Dataset
    name: str
    grid: TimeArray
    tuned: tuple[str, ...]
    held_out: tuple[str, ...]

    @classmethod
    def of(cls, dataset: Dataset, name: str, seed: int = 0) -> Side:
        """Draw the people among those of both platforms."""
        logs = [dataset.platform(one).log for one in dataset.platforms.names]
        both = np.array(logs[0].user_ids.intersection(logs[1].user_ids).sort_values())
        both = np.random.default_rng(seed).permutation(both)
        half, rest = len(both) // 2, (len(both) + len(both) // 2) // 2
        grid = period_boundaries(dataset.log, dataset.period)
        return cls(dataset, name, grid, tuple(both[half:rest]), tuple(both[:half]))

    def known(self, cutoff: np.datetime64) -> Dataset:
        """Give the log in which the held out are cut off before a test."""
        early = cut_off(self.dataset, self.name, self.tuned, self.grid[-4])
        return cut_off(early, self.name, self.held_out, cutoff)

    def windows(self, split: str) -> list[Window]:
        """Give the windows of those cut off who took some of the side in the period of a split."""
        position = {"validation": -4, "test 1": -3, "test 2": -2}[split]
        people = self.tuned if split == "validation" else self.held_out
        cutoff = self.grid[position]
        known = self.known(max(cutoff, self.grid[-3]))
        windows = make_windows(
            known.log, known.catalog, known.period, cutoff, min_periods=MIN_PERIODS
        )
        chosen = [window for window in windows if window.history.user_id in set(people)]
        taken = self.counts(chosen).sum(axis=1)
        return [window for window, n in zip(chosen, taken, strict=True) if n]

    def counts(self, windows: Sequence[Window]) -> FloatArray:
        """(n_windows, n) events of the side's categories in the target periods."""
        return self.within(target_counts(windows))

    def within(self, weights: FloatArray) -> FloatArray:
        """(n, n) columns of the side's categories."""
        return weights[:, self.dataset.platforms.categories(self.name)]

    def population(self, windows: Sequence[Window]) -> FloatArray:
        """(n_windows, n) what everybody took of the side in the period before the cutoff."""
        return row_shares(self.within(population_mix(_histories(windows), "last period")))


def _histories(windows: Sequence[Window]) -> list[History]:
    return [window.history for window in windows]


def forecast_mixes(side: Side) -> dict[str, Mix]:
    """Fit the forecasters; each gives (n_windows, n) mixes of the side."""
    known = side.known(side.grid[-3])
    validation = split_windows(known, side.grid)["validation"]
    registry = ForecasterRegistry(training_windows(known, side.grid), validation)
    mixes: dict[str, Mix] = {name: partial(mix_of, side, registry[name]) for name in FORECASTERS}
    ease: Any = registry["CategoryEASE"]
    return mixes | {EASE_WITHIN: fit_ease_within(side, ease)}


def mix_of(side: Side, forecaster: Forecaster, windows: Sequence[Window]) -> FloatArray:
    """(n_windows, n) forecast mixes of the side."""
    categories = side.dataset.platforms.categories(side.name)
    found = forecaster.forecast(_histories(windows))
    return side.within(np.stack([one.within(categories).category_weights for one in found]))


def fit_ease_within(side: Side, ease: CategoryEASE) -> Mix:
    """Mix what EASE alone predicts within the side into the population's mix there.

    Its power and share are those of least loss for the people who are cut off before validation.
    """

    def predicted(power: float, windows: Sequence[Window]) -> FloatArray:
        alone = replace(ease, power=power, share=1.0)
        return row_shares(side.within(alone.category_weights(_histories(windows))))

    tuned = side.windows("validation")
    population, counts = side.population(tuned), side.counts(tuned)
    fits = {one: fit_interpolation(population, predicted(one, tuned), counts) for one in POWERS}
    power = min(fits, key=lambda one: fits[one][1])
    share = fits[power][0]
    print(f"{side.name}: power {power:g}, share {share:g}", flush=True)
    return lambda windows: interpolate(side.population(windows), predicted(power, windows), share)


def forecast_rows(side: Side) -> Iterator[Row]:
    """Measure each forecaster's gain over the population's mix of the side."""
    mixes = forecast_mixes(side)
    for split in ("test 1", "test 2"):
        windows = side.windows(split)
        counts, people = side.counts(windows), [window.history.user_id for window in windows]
        base = log_loss(side.population(windows), counts)
        keys = _keys(side, split)
        yield people_row(keys | {"model": "Population"}, "log_loss", base, people)
        for name, mix in mixes.items():
            gain = base - log_loss(mix(windows), counts)
            yield people_row(keys | {"model": name}, "log_loss_gain", gain, people)


def list_scores(
    side: Side, windows: Sequence[Window], ease: ItemToItem, weight: float
) -> FloatArray:
    """(n_windows,) NDCG@10 of lists of the side, by popularity and the weighted EASE."""
    histories, platforms = _histories(windows), side.dataset.platforms
    items = platforms.items(side.name)
    forecasts = ForecasterRegistry(windows, windows)["DecayedDirichlet"].forecast(histories)
    rankings = rank(
        forecasts,
        histories,
        Blend((RecentPopularity(), ease), (1.0, weight)),
        k=K,
        strength=0.0,
        candidates=items,
    )
    return np.array(
        [
            ndcg_at(K, ranking.item_idx, np.intersect1d(window.target.item_idx, items))
            for ranking, window in zip(rankings, windows, strict=True)
        ]
    )


def fit_ease(side: Side, cutoff: np.datetime64, regularization: float) -> ItemToItem:
    """Fit EASE on the joined log before a cutoff."""
    known = side.known(max(cutoff, side.grid[-3]))
    return ItemToItem(Ease(regularization)).fit(known.log, known.catalog, cutoff)


def list_rows(side: Side) -> Iterator[Row]:
    """Measure lists of the side by popularity alone and with EASE, chosen on validation."""
    tuned, best = side.windows("validation"), (-1.0, 0.0, 0.0)
    for regularization in REGULARIZATIONS:
        ease = fit_ease(side, side.grid[-4], regularization)
        for weight in WEIGHTS:
            ndcg = float(list_scores(side, tuned, ease, weight).mean())
            best = max(best, (ndcg, regularization, weight))
    _, regularization, weight = best
    print(f"{side.name}: regularization {regularization:g}, weight {weight:g}", flush=True)
    for split, position in (("test 1", -3), ("test 2", -2)):
        windows = side.windows(split)
        people = [window.history.user_id for window in windows]
        ease = fit_ease(side, side.grid[position], regularization)
        popular = list_scores(side, windows, ease, 0.0)
        blended = list_scores(side, windows, ease, weight)
        keys = _keys(side, split)
        yield people_row(keys | {"model": "RecentPopularity"}, f"ndcg@{K}", popular, people)
        model = keys | {"model": "RecentPopularity + Ease"}
        yield people_row(model, f"ndcg@{K}", blended, people)
        yield people_row(model, f"ndcg@{K} above RecentPopularity", blended - popular, people)


def _keys(side: Side, split: str) -> Row:
    return {"dataset": "completejourney", "split": f"{split} / {side.name}", "seeds": [0]}


def main() -> None:
    """Measure both sides and write the table."""
    joined = load_platforms()
    rows: list[Row] = []
    for name in joined.platforms.names:
        side = Side.of(joined, name)
        rows += [*forecast_rows(side), *list_rows(side)]
    record_results("forecasting/platforms", rows)


if __name__ == "__main__":
    main()
