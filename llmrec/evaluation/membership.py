"""Membership inference: how well an engine tells who was among the people of its fit.

The attack is the likelihood-ratio attack (LiRA; Carlini et al. 2022, arXiv 2112.03570): engines are
fitted on halves of the people, and the figure that an engine has of a person, x, is compared with
those of engines with and without the person,
    log N(x; mean of those with, sd) - log N(x; mean of those without, sd),
with one standard deviation of all, as the paper advises for few reference models. A history is what
an engine is asked with, so it is no secret: what is attacked is what the fit has learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmrec.data.calendar import MILLISECOND
from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window
from llmrec.data.windows import last_period_windows
from llmrec.engine import InterestEngine
from llmrec.engine_settings import Effort
from llmrec.errors import DataError
from llmrec.forecasters.precomputed import predict_weights
from llmrec.metrics import log_loss, percentile_interval
from llmrec.types import BoolArray, FloatArray

MIN_PEOPLE = 20
FALSE_POSITIVES = 0.01
DRAWS = 500  # of people, for intervals
HISTORIES_PER_BATCH = 256


@dataclass(frozen=True)
class AttackResult:
    """How well an attack tells members of a fit from others.

    Attributes
    ----------
    attacked
        What an engine tells of a person: "forecasts" or "lists".
    auc
        Area under the curve: .5 is guessing, 1 is certain; with its 95 % interval over people.
    found
        Share of the members found while 1 % of the others are taken for members, with its interval;
        guessing finds 1 %.
    n_people, n_engines
        People attacked, and engines fitted on halves of them, each the target of the others.
    """

    attacked: str
    auc: tuple[float, float, float]
    found: tuple[float, float, float]
    n_people: int
    n_engines: int


def attack_engines(
    dataset: Dataset,
    effort: Effort,
    n_engines: int = 8,
    seed: int = 0,
    show: Callable[[str], None] = lambda line: None,
) -> list[AttackResult]:
    """Fit engines on halves of the people, and attack each by means of the others.

    The figure of a forecast is the log-loss of the person's last period, that of a list how far the
    items taken there stand above the mean, in standard deviations. Their last period is part of
    what the engines of members were fitted on.

    Parameters
    ----------
    n_engines
        At least 4.
    show
        Is told of each engine that is fitted.

    Raises
    ------
    DataError
        If there are fewer engines, or fewer than `MIN_PEOPLE` people with a last period.
    """
    if n_engines < 4:
        raise DataError(
            f"{n_engines} engines are too few to compare one with others: fit 4 at least"
        )
    log = dataset.log.align_to(dataset.catalog)
    windows = stranger_windows(log, dataset)
    if len(windows) < MIN_PEOPLE:
        raise DataError(f"{len(windows)} people have a last period, and {MIN_PEOPLE} are needed")
    is_member = draw_members(log.n_users, n_engines, seed)
    figures: dict[str, list[FloatArray]] = {"forecasts": [], "lists": []}
    for number, members in enumerate(is_member):
        show(f"engine {number + 1} of {n_engines}, of {int(members.sum())} people")
        part = log.drop_events({"of people held out": ~members[log.user_idx]})
        half = replace(dataset, log=part, item_rows=None)
        engine = InterestEngine.from_pretrained(data=half, model=None).fit(effort, seed=seed)
        for name, found in engine_figures(engine, windows).items():
            figures[name].append(found)
    users = np.array([window.history.user_idx for window in windows])
    return [
        attack(name, np.stack(found), is_member[:, users], seed) for name, found in figures.items()
    ]


def stranger_windows(log: Interactions, dataset: Dataset) -> list[Window]:
    """Cut everybody's last period, under other names and as if it came after the log's end.

    So an engine is asked by somebody who has a person's events and does not say whose they are;
    about people and times that it knows to have seen it would refuse to answer.
    """
    log = replace(log, user_ids="stranger " + log.user_ids)
    cut = last_period_windows(log, dataset.catalog, dataset.period)
    if not cut:
        return []
    later = log.timestamp.max() + MILLISECOND - min(window.history.cutoff for window in cut)
    moved = replace(log, timestamp=log.timestamp + later)
    return last_period_windows(moved, dataset.catalog, dataset.period)


def draw_members(n_people: int, n_engines: int, seed: int) -> BoolArray:
    """(n_engines, n_people) who is in which fit: a half for each engine, drawn by itself.

    Were everybody in as many fits as everybody else, an engine that has a person would leave fewer
    of the others with them, whose mean is then less certain: the attack would be biased by that.
    """
    rng = np.random.default_rng(seed)
    order = rng.random((n_engines, n_people)).argsort(axis=1)
    return np.asarray(order < n_people // 2)


def engine_figures(engine: InterestEngine, windows: Sequence[Window]) -> dict[str, FloatArray]:
    """(n_windows,) what an engine tells of each person: higher, the better it knows them."""
    losses, lists = [], []
    for start in range(0, len(windows), HISTORIES_PER_BATCH):
        batch = windows[start : start + HISTORIES_PER_BATCH]
        histories = [window.history for window in batch]
        losses.append(log_loss(predict_weights(engine.prior, histories), target_counts(batch)))
        scores = engine.blend.scores(histories)
        scores -= scores.mean(axis=1, keepdims=True)
        scores /= scores.std(axis=1, keepdims=True)
        taken = [np.unique(window.target.item_idx) for window in batch]
        lists += [float(row[items].mean()) for row, items in zip(scores, taken, strict=True)]
    return {"forecasts": -np.concatenate(losses), "lists": np.array(lists)}


def attack(attacked: str, figures: FloatArray, is_member: BoolArray, seed: int = 0) -> AttackResult:
    """Attack each engine by means of the others.

    Parameters
    ----------
    figures
        (n_engines, n_people) of each engine and person.
    is_member
        (n_engines, n_people) who was in which fit.
    """
    ratios = np.stack([_ratios(figures, is_member, target) for target in range(len(figures))])
    n_people = figures.shape[1]
    rng = np.random.default_rng(seed)
    draws = [_mean_scores(ratios, is_member)]
    for _ in range(DRAWS):
        drawn = rng.choice(n_people, n_people)
        draws.append(_mean_scores(ratios[:, drawn], is_member[:, drawn]))
    values = np.array(draws)
    auc, found = ((float(column[0]), *percentile_interval(column[1:])) for column in values.T)
    return AttackResult(attacked, auc, found, n_people, len(figures))


def _ratios(figures: FloatArray, is_member: BoolArray, target: int) -> FloatArray:
    """(n_people,) log-likelihood ratios of a target engine's figures; 0 where nothing is known."""
    others = np.arange(len(figures)) != target
    known, members = figures[others], is_member[others]
    means = {}
    for is_in in (True, False):
        chosen = members if is_in else ~members
        n = chosen.sum(axis=0)
        sums = np.where(chosen, known, 0.0).sum(axis=0)
        means[is_in] = np.where(n > 0, sums / np.maximum(n, 1), np.nan)
    rest = known - np.where(members, means[True], means[False])
    variance = max(float(np.nanmean(rest**2)), 1e-12)
    x = figures[target]
    # Nobody can be told who is in no other fit, or in all.
    ratio = ((x - means[False]) ** 2 - (x - means[True]) ** 2) / (2 * variance)
    return np.asarray(np.nan_to_num(ratio), dtype=np.float64)


def _mean_scores(ratios: FloatArray, is_member: BoolArray) -> tuple[float, float]:
    """Give the mean over engines of area under the curve, and of members found."""
    each = [scores(one, member) for one, member in zip(ratios, is_member, strict=True)]
    auc, found = np.mean(each, axis=0)
    return float(auc), float(found)


def scores(ratios: FloatArray, is_member: BoolArray) -> tuple[float, float]:
    """Give the area under the curve, ties counted half, and the members found at 1 % others."""
    inside, outside = ratios[is_member], np.sort(ratios[~is_member])
    below = np.searchsorted(outside, inside, side="left")
    upto = np.searchsorted(outside, inside, side="right")
    auc = (below + upto).mean() / (2 * len(outside))
    threshold = outside[len(outside) - 1 - int(FALSE_POSITIVES * len(outside))]
    return float(auc), float((inside > threshold).mean())
