"""A list whose mix of categories follows the forecast (Steck 2018)."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real

import numpy as np
from scipy import sparse

from llmrec.data.catalog import Catalog
from llmrec.errors import EditError
from llmrec.forecast import Forecast
from llmrec.ranking.ranking import Ranking, validate_k
from llmrec.types import FloatArray

SMOOTHING = 0.01  # share of the forecast in a list's mix: keeps the divergence finite


def rerank_calibrated(
    ranking: Ranking, forecast: Forecast, catalog: Catalog, k: int, weight: float
) -> Ranking:
    """Choose k items of a longer ranking, so that their mix of categories follows the forecast.

    Items are chosen one by one, each the one that makes (1 - weight) * (sum of scores) - weight *
    size * KL(w || list) largest (Steck 2018, "Calibrated recommendations", equation 7, greedily as
    there, with the divergence times the size of the list so far: both terms then grow with it). w
    is the forecast, and the list's mix is smoothed by it. Ties: the higher rank. Muted items are
    chosen only when nothing else is left.

    Parameters
    ----------
    ranking
        Of more than k items: those to choose from. Its contributions stay with their items.
    weight
        0 gives its first k items, 1 follows the mix alone.

    Returns
    -------
    Ranking
        In the order in which the items were chosen: scores need not fall.

    Raises
    ------
    EditError
        If the weight is not in [0, 1].
    ValueError
        If k < 1, or the forecast is of another catalog.
    """
    validate_k(k)
    if not (isinstance(weight, Real) and 0 <= weight <= 1):
        raise EditError(
            f"a list is calibrated by a weight in 0..1 (0: the scores alone, 1: the mix alone), "
            f"not {weight!r}"
        )
    wanted = forecast.category_weights
    if len(wanted) != catalog.n_categories:
        raise ValueError(
            f"the forecast has {len(wanted)} category weights, the catalog "
            f"{catalog.n_categories} categories: make the forecast with this catalog."
        )
    shares = catalog.category_shares[ranking.item_idx].toarray()
    chosen = _choose_greedily(ranking, shares, wanted, k, weight)
    parts: sparse.csr_array = ranking.category_parts[chosen]
    return replace(
        ranking,
        item_idx=ranking.item_idx[chosen],
        scores=ranking.scores[chosen],
        scorer_parts=ranking.scorer_parts[chosen],
        category_parts=parts,
        muted=ranking.muted[chosen],
    )


def smoothed_kl(wanted: FloatArray, mixes: FloatArray) -> FloatArray:
    """(n,) KL divergence in nats of the wanted mix from (n, n_categories) mixes, each smoothed.

    A list's mix may sum to less than 1, where items have no category.
    """
    smoothed = (1 - SMOOTHING) * mixes + SMOOTHING * wanted
    some = wanted > 0
    ratio = np.log(wanted[some]) - np.log(smoothed[..., some])
    return np.asarray((wanted[some] * ratio).sum(axis=-1))


def _choose_greedily(
    ranking: Ranking, shares: FloatArray, wanted: FloatArray, k: int, weight: float
) -> list[int]:
    """Choose k positions of a ranking one by one; ``shares`` is (n, n_categories) of its items."""
    total, left, chosen = np.zeros_like(wanted), np.ones(len(shares), dtype=bool), list[int]()
    for size in range(1, min(k, len(shares)) + 1):
        loss = size * smoothed_kl(wanted, (total + shares) / size)
        unmuted = left & ~ranking.muted
        gains = (1 - weight) * ranking.scores - weight * loss
        gains[~(unmuted if unmuted.any() else left)] = -np.inf
        best = int(np.argmax(gains))
        chosen.append(best)
        total, left[best] = total + shares[best], False
    return chosen
