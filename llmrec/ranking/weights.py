"""The weights of a blend, chosen on validation windows by the metric of the lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from llmrec.data.periods import Window
from llmrec.data.windows import MIN_FIT_WINDOWS
from llmrec.forecast import ItemScorer
from llmrec.ranking.best_items import BestItems
from llmrec.ranking.blend import (
    Blend,
    most_likely_weights,
    top_items,
)
from llmrec.types import FloatArray, RepeatPolicy

# Steps of a weight: times a factor, or plus a share of the sum of all weights.
WEIGHT_FACTORS, WEIGHT_STEP = (0.0, 0.5, 0.8, 1.25, 2.0), 0.1
MAX_PASSES, MIN_GAIN = 3, 2e-4
N_PLACES = 10  # of each scorer's list, whose items trees' first stage is weighed by
TOP_N = 50  # items a person among which weights are fitted
LIKELY_L2 = 1e-3
FEW_WINDOWS = 300
MIN_SHARE = 0.01  # of the largest weight: a smaller one is not worth its scorer
ADDED_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5)  # of all other weights


def choose_weights(
    scorers: Sequence[ItemScorer],
    windows: Sequence[Window],
    *,
    repeat: RepeatPolicy = "allow",
    k: int = 10,
) -> tuple[float, ...]:
    """Choose a blend's weights for a great NDCG@k on validation windows.

    They are the mean of three ways' weights, as shares of their sums: those that make the targets
    most likely, those that do so among the items that a list could hold (`fit_blend` with
    ``top_n``), and from the best of these, or of the scorers alone, a coordinate search for NDCG@k
    itself, as the metric has no gradient: each weight in turn takes the step (by `WEIGHT_FACTORS`,
    or up by `WEIGHT_STEP` of all weights) of greatest NDCG, in up to `MAX_PASSES` passes. The mean
    ranks other people's lists better than any of the three, and than the one that does best in
    cross-validation (LOG.md). Weights below `MIN_SHARE` of the largest become 0. Where a scorer
    alone ranks better, it is alone. Only items among the best of a scorer, or of their sum, are
    looked at.

    Returns
    -------
    tuple[float, ...]
        One weight >= 0 a scorer, on the scale of the most likely ones; at least one is above 0.
    """
    return choose_weights_of(BestItems.of(scorers, windows, repeat, k))


def choose_weights_of(best: BestItems) -> tuple[float, ...]:
    """Choose weights as `choose_weights` does, from scores that are known already."""
    n_scorers = len(best.scores)
    if n_scorers == 1 or not best.n:
        return (1.0,) * n_scorers
    ways = (_likely_weights, _likely_top_weights, _searched_weights)
    found = [weights for way in ways if (weights := way(best)).any()]
    if not found:
        return (1.0,) * n_scorers
    shares = np.mean([weights / weights.sum() for weights in found], axis=0)
    shares[shares < MIN_SHARE * shares.max()] = 0.0
    weights = shares * found[0].sum()
    alone = max(np.eye(n_scorers), key=best.ndcg)
    chosen = alone if best.ndcg(alone) > best.ndcg(weights) else weights
    return tuple(chosen.tolist())


def likely_weights(
    scorers: Sequence[ItemScorer], windows: Sequence[Window], repeat: RepeatPolicy
) -> tuple[float, ...]:
    """Give the weights that make targets most likely among the `BestItems`.

    `fit_blend` needs the scores of all windows and items at once; here those of a block are enough.

    Raises
    ------
    ValueError
        If no target of a window has an item that counts.
    """
    best = BestItems.of(scorers, windows, repeat, N_PLACES)
    if not best.n:
        raise ValueError(f"none of {len(windows)} windows has a target event to learn from")
    return tuple(_likely_weights(best).tolist())


def _likely_weights(best: BestItems) -> FloatArray:
    totals = best.shares.sum(axis=1)
    some = totals > 0
    if not some.any():
        return np.ones(len(best.scores))
    scores = best.scores[:, some].astype(np.float64)
    shares = best.shares[some] / totals[some, None]
    return most_likely_weights(scores, shares, best.possible[some], LIKELY_L2)


def _likely_top_weights(best: BestItems) -> FloatArray:
    """Fit them among the best `TOP_N` items under the weights before, twice."""
    weights, scores = _likely_weights(best), best.scores.astype(np.float64)
    for _ in range(2):
        top = top_items(scores, best.shares, best.possible, weights, TOP_N)
        weights = most_likely_weights(*top, LIKELY_L2) if top[1].size else weights
    return weights


def _searched_weights(best: BestItems) -> FloatArray:
    """Search coordinate by coordinate from the best of the likely weights and single scorers."""
    likely = [_likely_weights(best), _likely_top_weights(best)]
    singles = np.diag(np.full(len(best.scores), max(likely[0].sum(), 1.0)))
    weights: FloatArray = max((*likely, *singles), key=best.ndcg).copy()
    blended, found = best.blended(weights), best.ndcg(weights)
    for _ in range(MAX_PASSES):
        before = found
        for place, part in enumerate(best.scores):
            start, old = blended, weights[place]
            for value in _weight_steps(weights, place):
                tried = start + np.float32(value - old) * part
                if (ndcg := best.ndcg_of(tried)) > found and value + weights.sum() > old:
                    found, blended, weights[place] = ndcg, tried, value
        if found - before < MIN_GAIN:
            break
    return weights


def _weight_steps(weights: FloatArray, position: int) -> tuple[float, ...]:
    """Give the values to try next for one weight."""
    weight = weights[position]
    return (*(weight * factor for factor in WEIGHT_FACTORS), weight + WEIGHT_STEP * weights.sum())


def more_scorers_help(best: BestItems, n_first: int, seed: int = 0) -> bool:
    """Whether lists by all scorers are better than those by the first alone.

    Half of the windows choose both blends' weights and the other half judge them by NDCG@k, and the
    other way round: the mean gain has to exceed twice its standard error; with fewer than
    `FEW_WINDOWS`, which could not show that, 0. With fewer than twice `MIN_FIT_WINDOWS`: yes.
    """
    if best.n < 2 * MIN_FIT_WINDOWS:
        return True
    gains = []
    for chosen, judged in _halves(best, seed):
        first = replace(chosen, scores=chosen.scores[:n_first])
        without = np.array([*choose_weights_of(first), *[0.0] * (len(best.scores) - n_first)])
        every = np.array(choose_weights_of(chosen))
        lists = [judged.each_ndcg(judged.blended(weights)) for weights in (every, without)]
        gains.append(lists[0] - lists[1])
    found = np.concatenate(gains)
    error = found.std() / np.sqrt(len(found))
    return bool(found.mean() > (0 if best.n < FEW_WINDOWS else 2 * error))


def _halves(best: BestItems, seed: int) -> list[tuple[BestItems, BestItems]]:
    """Give two halves of the windows, drawn at random, in both orders."""
    half = np.random.default_rng(seed).permutation(best.n) % 2 == 0
    return [(best.part(one), best.part(~one)) for one in (half, ~half)]


def choose_added_weight(
    blend: Blend,
    scorer: ItemScorer,
    windows: Sequence[Window],
    *,
    repeat: RepeatPolicy = "allow",
    k: int = 10,
    seed: int = 0,
) -> float:
    """Choose the weight of one more scorer, all others as they are; 0 unless it helps.

    Half of the windows choose it and the other half judge it by NDCG@k, and the other way round: if
    it does not gain `MIN_GAIN` that way, it gets no weight.
    """
    best = BestItems.of([blend, scorer], windows, repeat, k)
    values = np.array(ADDED_WEIGHTS) * max(sum(blend.weights) + blend.trees_weight, 1e-9)
    if best.n < 2 * MIN_FIT_WINDOWS:
        return 0.0
    gains = []
    for half, other in _halves(best, seed):
        chosen = _best_added(half, values)
        gains.append(other.ndcg(np.array([1, chosen])) - other.ndcg(np.array([1.0, 0.0])))
    return float(_best_added(best, values)) if np.mean(gains) > MIN_GAIN else 0.0


def _best_added(best: BestItems, values: FloatArray) -> float:
    return float(max(values, key=lambda value: best.ndcg(np.array([1, value]))))
