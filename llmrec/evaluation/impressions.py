"""How scorers and engines order what people were shown, by what they clicked of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from llmrec.data.calendar import to_datetime64
from llmrec.data.dataset import Dataset
from llmrec.data.impressions import Impressions
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, TimeLike, make_histories
from llmrec.data.windows import holdout_cutoff
from llmrec.engine import InterestEngine
from llmrec.errors import DataError
from llmrec.forecast import ItemScorer
from llmrec.impression_metrics import AUC, IMPRESSION_METRICS, impression_metrics
from llmrec.metrics import percentile_interval, resampled_means
from llmrec.ranking.blend import stack_scores
from llmrec.ranking.ranking import rank
from llmrec.ranking.scorers import RecentPopularity
from llmrec.ranking.text_scorers import TextPopularity, TitleKernel
from llmrec.types import BoolArray, FloatArray, IntArray

HOURS = 6.0  # that an article lives, about: the span of what is popular lately
SPLIT = "impressions"
MAX_IMPRESSIONS = 500  # of `compare_on_impressions`
_SCORES_PER_BATCH = 1_000_000  # impressions times items: bounds the memory of a batch


def evaluate_impressions(
    scorers: Mapping[str, ItemScorer | InterestEngine],
    dataset: Dataset,
    *,
    since: TimeLike | None = None,
    n: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Score the order that models give to what each impression showed; one row a model and list.

    A model knows what precedes the impression: the person's earlier clicks, and those of everybody.
    It orders the shown items alone, also those that the person has clicked before.

    Parameters
    ----------
    scorers
        Item scorers, fitted on what precedes ``since``, and engines, by the name in the table. An
        engine tilts its blend to its forecast, as in `llmrec.ranking.rank`.
    dataset
        With ``impressions``.
    since
        Impressions at or after this count (default: all).
    n, seed
        How many of them, drawn at random (default: all).

    Returns
    -------
    pandas.DataFrame
        Columns model, user_id, timestamp, shown and clicked (numbers of items), is_new (something
        was clicked, and nothing of it had been by anybody before), and `IMPRESSION_METRICS`, see
        `impression_metrics`. These are NaN where nothing or everything was clicked: any order is as
        good as any other there.

    Raises
    ------
    DataError
        If there is no such impression, or a model has seen what comes after one.
    ValueError
        If a model gives scores of another shape, NaN or infinity.
    """
    chosen = _choose(dataset, since, n, seed)
    dataset = replace(dataset, log=dataset.log.align_to(dataset.catalog))
    lists = chosen.list_of_item
    scores = {name: np.empty(len(lists)) for name in scorers}
    for shown, part, histories in _batches(dataset, chosen):
        for name, model in scorers.items():
            scores[name][shown] = _score_shown(name, model, histories, part)
    is_measured = (chosen.n_clicked > 0) & (chosen.n_clicked < chosen.n_shown)
    about = _describe(dataset.log, chosen)
    tables = []
    for name, found in scores.items():
        values = impression_metrics(found, chosen.is_clicked, chosen.offsets)
        known = {metric: np.where(is_measured, each, np.nan) for metric, each in values.items()}
        tables.append(about.assign(**known).assign(model=name))
    columns = ["model", *about.columns, *IMPRESSION_METRICS]
    return pd.concat(tables, ignore_index=True)[columns]


def summarize_impressions(scores: pd.DataFrame, dataset: str = "") -> pd.DataFrame:
    """Average what `evaluate_impressions` gave over impressions, in a tidy table.

    Rows: dataset, split, slice ("all"; "new": nobody had clicked before what was clicked), model,
    metric, value, low, high, n. Means are over impressions, as MIND has them, with their 95 %
    interval over people, who are drawn with all their impressions; n are the impressions that are
    measured. Metric "measured" is their share of all, and its n all of them.
    """
    rows = []
    for (model, is_new), part in _slices(scores):
        name = "new" if is_new else "all"
        people = part["user_id"].factorize()[0]
        is_measured = part[AUC].notna().to_numpy()
        values = part[list(IMPRESSION_METRICS)].to_numpy(np.float64)
        samples = _means_over_people(values, people)
        measured = dict(zip(IMPRESSION_METRICS, samples.T, strict=True))
        share = is_measured.astype(np.float64)[:, None]
        measured["measured"] = _means_over_people(share, people)[:, 0]
        for metric, found in measured.items():
            count = len(part) if metric == "measured" else int(is_measured.sum())
            interval = percentile_interval(found[1:])
            rows.append((dataset, SPLIT, name, model, metric, found[0], *interval, count))
    columns = ("dataset", "split", "slice", "model", "metric", "value", "low", "high", "n")
    return pd.DataFrame(rows, columns=list(columns))


def compare_on_impressions(
    dataset: Dataset, engines: Mapping[str, InterestEngine] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Compare what is popular, titles and engines on impressions after the fits; see the summary.

    The scorers are fitted on what precedes `holdout_cutoff`, or the end of an engine's fit if that
    is later; `MAX_IMPRESSIONS` of those after it are drawn.
    """
    engines = dict(engines or {})
    ends = [to_datetime64(one.settings.fitted_before) for one in engines.values()]
    since = max([holdout_cutoff(dataset.log, dataset.period), *ends])
    lately = RecentPopularity(HOURS / 24, 0.1)
    fits = (TitleKernel(), TextPopularity(lately))
    texts = [one.fit(dataset.log, dataset.catalog, since) for one in fits]
    scorers = {one.name: one for one in (RecentPopularity(), lately, *texts)}
    found = evaluate_impressions(
        {**scorers, **engines}, dataset, since=since, n=MAX_IMPRESSIONS, seed=seed
    )
    return summarize_impressions(found, dataset.name)


def _choose(dataset: Dataset, since: TimeLike | None, n: int | None, seed: int) -> Impressions:
    """Give the impressions to score, drawn if there are more than n; DataError if none is left."""
    if dataset.impressions is None:
        raise DataError(
            f"{dataset.name} tells nothing of what was shown. Logs in the format of MIND do."
        )
    every = dataset.impressions.align_to(dataset.catalog)
    found = every if since is None else every.since(to_datetime64(since))
    if not found.n_impressions:
        after = "" if since is None else f" at or after {since}"
        raise DataError(f"{dataset.name} has no impression{after} of {every.n_impressions} in all.")
    if n is None or n >= found.n_impressions:
        return found
    if n < 1:
        raise DataError(f"{n} impressions cannot be drawn; give 1 or more, or None for all.")
    drawn = np.random.default_rng(seed).permutation(found.n_impressions)[:n]
    return found.select(np.sort(drawn))


def _batches(
    dataset: Dataset, chosen: Impressions
) -> Iterator[tuple[slice, Impressions, list[History]]]:
    """Give some impressions at a time, where their items stand among all, and their histories."""
    size = max(1, _SCORES_PER_BATCH // dataset.catalog.n_items)
    for start in range(0, chosen.n_impressions, size):
        part = chosen.select(np.arange(start, min(start + size, chosen.n_impressions)))
        first = int(chosen.offsets[start])
        yield slice(first, first + len(part.item_idx)), part, _histories(dataset, part)


def _histories(dataset: Dataset, chosen: Impressions) -> list[History]:
    """Give what each person had clicked before each impression, of one population."""
    users = dataset.log.user_ids.get_indexer(chosen.user_ids)
    everybody, found = dataset.everybody, list[History]()
    for user, user_id, time in zip(users, chosen.user_ids, chosen.timestamp, strict=True):
        if user >= 0:
            found += dataset.histories(time, [int(user)])
            continue
        nothing = Interactions.empty(dataset.catalog.item_ids, [user_id])
        found += make_histories(
            nothing, dataset.catalog, dataset.period, time, None, dataset.verb, everybody
        )
    return found


def _score_shown(
    name: str, model: ItemScorer | InterestEngine, histories: list[History], part: Impressions
) -> FloatArray:
    """(n_shown,) scores of what each list showed."""
    if not isinstance(model, InterestEngine):
        return np.asarray(stack_scores([model], histories)[0, part.list_of_item, part.item_idx])
    own, end = model.dataset.catalog.item_ids, to_datetime64(model.settings.fitted_before)
    if not own.equals(part.item_ids):
        raise DataError(f"engine {name!r} was fitted with another catalog: fit it with this one.")
    if part.timestamp[0] < end:
        raise DataError(
            f"engine {name!r} was fitted on events up to {end}, and an impression is of "
            f"{part.timestamp[0]}: give since={str(end)!r}, or fit it with an earlier cutoff."
        )
    forecasts = model.forecaster.forecast(histories)
    blend, strength = model.blend.precompute(histories), model.settings.strength
    found, of_item = np.empty(len(part.item_idx)), np.empty(len(own))
    for place, (history, forecast) in enumerate(zip(histories, forecasts, strict=True)):
        spot = slice(part.offsets[place], part.offsets[place + 1])
        items = part.item_idx[spot]
        (listed,) = rank(
            [forecast], [history], blend, k=len(items), strength=strength, candidates=items
        )
        of_item[listed.item_idx] = listed.scores
        found[spot] = of_item[items]
    return found


def _describe(log: Interactions, chosen: Impressions) -> pd.DataFrame:
    """Give the columns of `evaluate_impressions` that no model has a part in."""
    return pd.DataFrame(
        {
            "user_id": chosen.user_ids,
            "timestamp": chosen.timestamp,
            "shown": chosen.n_shown,
            "clicked": chosen.n_clicked,
            "is_new": _are_new(log, chosen),
        }
    )


def _are_new(log: Interactions, chosen: Impressions) -> BoolArray:
    """(n_impressions,) whether something was clicked, and nothing of it by anybody before."""
    first = np.full(len(log.item_ids), np.iinfo(np.int64).max)
    np.minimum.at(first, log.item_idx, log.timestamp.astype("datetime64[ms]").view(np.int64))
    lists = chosen.list_of_item
    times = chosen.timestamp.astype("datetime64[ms]").view(np.int64)[lists]
    known = lists[chosen.is_clicked & (first[chosen.item_idx] < times)]
    n_known = np.bincount(known, minlength=chosen.n_impressions)
    return np.asarray((n_known == 0) & (chosen.n_clicked > 0))


def _slices(scores: pd.DataFrame) -> Iterator[tuple[tuple[str, bool], pd.DataFrame]]:
    """Give each model's rows, and those of them where what was clicked is new."""
    for model, part in scores.groupby("model", sort=False):
        yield (str(model), False), part
        if part["is_new"].any():
            yield (str(model), True), part[part["is_new"]]


def _means_over_people(values: FloatArray, people: IntArray) -> FloatArray:
    """(1 + draws, n_columns) means of (n, n_columns) values, and those of people drawn again.

    NaN values are left out. ``people`` (n,) are whose each row is, from 0.
    """
    known, n_people = ~np.isnan(values), int(people.max()) + 1
    sums = [
        np.bincount(people, column, minlength=n_people)
        for column in (*np.where(known, values, 0.0).T, *known.T.astype(np.float64))
    ]
    table = np.stack(sums, axis=1).astype(np.float64)
    drawn = np.concatenate((table.mean(axis=0)[None], resampled_means(table)))
    above, below = np.split(drawn, 2, axis=1)
    return np.asarray(np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan))
