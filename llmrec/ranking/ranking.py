"""Rankings: item scores tilted toward the forecast, as contributions that sum to each score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral, Real
from typing import Protocol

import numpy as np
from scipy import sparse
from scipy.special import softmax

from llmrec.data.catalog import Catalog
from llmrec.data.periods import History
from llmrec.errors import EditError
from llmrec.forecast import Forecast
from llmrec.ranking.blend import Blend, rankable_items
from llmrec.ranking.edits import Edit, apply_edits, muted_item_mask
from llmrec.ranking.largest import sparse_rows
from llmrec.ranking.order import Popularity, best_muted_last, popularity_at
from llmrec.ranking.scorers import popularity_before
from llmrec.types import BoolArray, FloatArray, IntArray, RepeatPolicy

# Added to both shares before their ratio is taken: it bounds the pull on one category to
# strength * log(1 / EPSILON), so that a share of 0 costs much, yet something finite.
EPSILON = 1e-9
MAX_STRENGTH = 100.0
_SCORES_PER_BATCH = 1_000_000  # users times items: keeps the parts of a batch small
_CACHED_CUTOFFS = 4  # whose item counts are cached, each as wide as the catalog


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best items for one person, and the contributions to each score.

    ``scores == scorer_parts.sum(1) + category_parts.sum(1)`` to 1e-9.

    Attributes
    ----------
    item_idx
        (n,) items, best first, those of muted categories after all others; n <= k.
    scores
        (n,) log scale, comparable inside this ranking only.
    scorer_names
        (n_scorers,) names of the scorers in explanations.
    scorer_parts
        (n, n_scorers) each scorer's contribution: its weight times its log-probability.
    category_parts
        (n, n_categories) sparse: each category's contribution from the tilt.
    muted
        (n,) whether items have any share of a muted category: they are ranked, and never listed.
    forecast, edit_strength
        The forecast before any edit, and how hard what edits change of it tilts the ranking.
    """

    item_idx: IntArray
    scores: FloatArray
    scorer_names: tuple[str, ...]
    scorer_parts: FloatArray
    category_parts: sparse.csr_array
    muted: BoolArray
    forecast: Forecast
    edit_strength: float


def rank(
    forecasts: Sequence[Forecast],
    histories: Sequence[History],
    blend: Blend,
    *,
    k: int,
    strength: float = 1.0,
    edit_strength: float | None = None,
    repeat: RepeatPolicy = "allow",
    candidates: IntArray | None = None,
    edits: Sequence[Edit] = (),
) -> list[Ranking]:
    """Rank items for each history by the blend, tilted toward its forecast and its edits.

    score_i = sum of the scorers' parts
    + sum_c m_ic * (strength * log(w_c / v_c) + edit_strength * log(w'_c / w_c)), with m the item's
    category shares, w the forecast, w' the same under the edits, and v the category mix that the
    blend implies over the items that may be ranked. Where the blend gives all of these the same
    score, their popularity before the cutoff takes its place (`popularity_before`). Ties: the item
    with more events of all users before the cutoff, then the smaller item id. Items with any share
    of a muted category come last, whatever the strength.

    Parameters
    ----------
    k
        How many items at most, >= 1; fewer come back where fewer may be ranked.
    strength
        In [0, 100]; 0 leaves the blend as it is, 1 moves its category mix to the forecast's.
    edit_strength
        Of what the edits change, in [0, 100]; None: the same.
    repeat
        "exclude" leaves out items of the history.
    candidates
        (n,) the only items that may be ranked; None: the whole catalog.
    edits
        Applied to every forecast first, those in force at the history's cutoff.

    Raises
    ------
    ValueError
        If an argument is out of bounds, a forecast does not fit the catalog, an edit cannot be
        applied, or a scorer gives another shape or non-finite scores.
    """
    validate_k(k)
    edit_strength = strength if edit_strength is None else edit_strength
    validate_strength(strength)
    validate_strength(edit_strength)
    popularity = lru_cache(_CACHED_CUTOFFS)(popularity_at)
    people = _scored_people(forecasts, histories, blend, repeat, candidates)
    return [one.rank(k, strength, edit_strength, edits, popularity) for one in people]


def rank_by_strength(
    forecasts: Sequence[Forecast],
    histories: Sequence[History],
    blend: Blend,
    strengths: Sequence[float],
    *,
    k: int,
    repeat: RepeatPolicy = "allow",
    candidates: IntArray | None = None,
) -> Iterator[list[Ranking]]:
    """Yield each person's rankings by `rank`, one a strength; their items are scored once."""
    popularity = lru_cache(_CACHED_CUTOFFS)(popularity_at)
    for one in _scored_people(forecasts, histories, blend, repeat, candidates):
        yield [one.rank(k, strength, strength, (), popularity) for strength in strengths]


@dataclass(frozen=True, eq=False)
class _ScoredPerson:
    """One person's scored items, to be ranked under any edits."""

    history: History
    forecast: Forecast
    names: tuple[str, ...]
    parts: FloatArray  # (n_parts, n_items)
    blended: FloatArray  # (n_items,) their sum
    possible: BoolArray  # (n_items,) whether it may be ranked
    log_ratio: FloatArray  # (n_categories,) of the forecast's share over the blend's

    @classmethod
    def of(
        cls,
        history: History,
        forecast: Forecast,
        names: tuple[str, ...],
        parts: FloatArray,
        possible: BoolArray,
    ) -> _ScoredPerson:
        """Sum the parts; where they say nothing, popularity takes their place."""
        apply_edits(forecast, (), history.catalog)  # refuses a forecast of another catalog
        blended = parts.sum(axis=0)
        if _is_constant(blended if possible.all() else blended[possible]):
            name, blended = popularity_before(history)
            names, parts = (name,), blended[None]
        log_ratio = _log_ratio(forecast, blended, possible, history.catalog)
        return cls(history, forecast, names, parts, blended, possible, log_ratio)

    def rank(
        self,
        k: int,
        strength: float,
        edit_strength: float,
        edits: Sequence[Edit],
        popularity: Popularity,
    ) -> Ranking:
        """Tilt and sort; the parameters are those of `rank`."""
        history, catalog = self.history, self.history.catalog
        edited = apply_edits(self.forecast, edits, catalog, history.cutoff)
        muted = muted_item_mask(edits, catalog, history.cutoff)
        pull = strength * self.log_ratio
        if edits:
            pull = pull + edit_strength * (log_weights(edited) - log_weights(self.forecast))
        scores = self.blended + catalog.category_shares @ pull
        best = best_muted_last(scores, self.possible, muted, k, history, popularity)
        category_parts = sparse_rows(catalog.category_shares, best)
        category_parts.data *= pull[category_parts.indices]
        return Ranking(
            best,
            scores[best],
            self.names,
            np.ascontiguousarray(self.parts[:, best].T),
            category_parts,
            muted[best],
            self.forecast,
            edit_strength,
        )


def _scored_people(
    forecasts: Sequence[Forecast],
    histories: Sequence[History],
    blend: Blend,
    repeat: RepeatPolicy,
    candidates: IntArray | None,
) -> Iterator[_ScoredPerson]:
    """Yield everybody's scored items, a batch at a time; the parameters are those of `rank`."""
    if len(forecasts) != len(histories):
        raise ValueError(f"{len(forecasts)} forecasts for {len(histories)} histories: give pairs.")
    each = _scores_by_user(blend, histories)
    for forecast, history, parts in zip(forecasts, histories, each, strict=True):
        possible = rankable_items(history, repeat) & _candidate_mask(candidates, history.catalog)
        yield _ScoredPerson.of(history, forecast, blend.names, parts, possible)


def validate_k(k: int) -> None:
    """Raise ValueError unless a list has at least one item."""
    if not (isinstance(k, Integral) and k >= 1):
        raise ValueError(f"k must be a whole number of at least 1, not {k!r}")


def validate_strength(strength: float) -> None:
    """Raise EditError unless a strength is in 0..100."""
    if not (isinstance(strength, Real) and 0 <= strength <= MAX_STRENGTH):
        raise EditError(
            f"strength must be finite and >= 0, at most {MAX_STRENGTH:g}, not {strength!r} "
            "(0 leaves the forecast out, 1 follows it)"
        )


class Reranker(Protocol):
    """A function that ranks one person's items under edits."""

    def __call__(
        self, edits: Sequence[Edit], k: int | None = None, *, strength: float | None = None
    ) -> Ranking:
        """Rank the k best (None: all that may be ranked).

        The strength is that of forecast and edits; None: its own.
        """
        ...


def make_reranker(
    history: History,
    forecast: Forecast,
    blend: Blend,
    *,
    strength: float,
    edit_strength: float | None = None,
    repeat: RepeatPolicy,
    candidates: IntArray | None = None,
) -> Reranker:
    """Make a function that ranks one person's items under edits; they are scored once.

    The parameters are those of `rank`, with the forecast as it was before any edit.
    """
    parts, possible = blend.weighted_scores([history])[:, 0], rankable_items(history, repeat)
    possible = possible & _candidate_mask(candidates, history.catalog)
    scored = _ScoredPerson.of(history, forecast, blend.names, parts, possible)
    popularity = lru_cache(_CACHED_CUTOFFS)(popularity_at)
    own_strengths = strength, strength if edit_strength is None else edit_strength

    def rerank(
        edits: Sequence[Edit], k: int | None = None, *, strength: float | None = None
    ) -> Ranking:
        size = history.catalog.n_items if k is None else k
        strengths = own_strengths if strength is None else (strength, strength)
        validate_k(size)
        for one in strengths:
            validate_strength(one)
        return scored.rank(size, *strengths, edits, popularity)

    return rerank


def listed_rank(ranking: Ranking, item_idx: int) -> int | None:
    """Give an item's rank (1-based), or None if it may not be listed: not ranked, or muted."""
    rank = rank_of(ranking, item_idx)
    return None if rank is None or ranking.muted[rank - 1] else rank


def rank_of(ranking: Ranking, item_idx: int) -> int | None:
    """Give an item's rank (1-based), or None if it is not in the ranking."""
    found = np.flatnonzero(ranking.item_idx == item_idx)
    return int(found[0]) + 1 if len(found) else None


def _is_constant(scores: FloatArray) -> bool:
    """Whether (n,) scores of several items differ by nothing but rounding."""
    if len(scores) < 2:
        return False
    lowest, highest = float(scores.min()), float(scores.max())
    return highest - lowest <= 1e-12 * max(1.0, abs(lowest), abs(highest))


def _scores_by_user(blend: Blend, histories: Sequence[History]) -> Iterator[FloatArray]:
    """Give each user's (n_scorers, n_items) parts; few users are scored in a batch."""
    size = max(1, _SCORES_PER_BATCH // histories[0].catalog.n_items) if histories else 1
    for start in range(0, len(histories), size):
        yield from blend.weighted_scores(histories[start : start + size]).swapaxes(0, 1)


def log_weights(forecast: Forecast) -> FloatArray:
    """(n_categories,) log of the forecast's shares, each plus `EPSILON`."""
    return np.asarray(np.log(forecast.category_weights + EPSILON), dtype=np.float64)


def _log_ratio(
    forecast: Forecast, blended: FloatArray, possible: BoolArray, catalog: Catalog
) -> FloatArray:
    """(n_categories,) log of the forecast's share over the share the blend implies."""
    if not possible.any():
        return np.zeros(catalog.n_categories)
    if possible.all():
        probability = softmax(blended)
    else:
        probability = np.zeros(catalog.n_items)
        probability[possible] = softmax(blended[possible])
    implied = probability @ catalog.category_shares
    if implied.any():  # none of the possible items may have a category
        implied /= implied.sum()
    ratio = (forecast.category_weights + EPSILON) / (implied + EPSILON)
    return np.asarray(np.log(ratio), dtype=np.float64)


def _candidate_mask(candidates: IntArray | None, catalog: Catalog) -> BoolArray:
    mask = np.full(catalog.n_items, candidates is None)
    if candidates is None:
        return mask
    chosen = np.asarray(candidates)
    if chosen.size and not np.issubdtype(chosen.dtype, np.integer):
        raise ValueError(f"candidates must be item indices (integers), not {chosen.dtype}")
    outside = chosen[(chosen < 0) | (chosen >= catalog.n_items)]
    if outside.size:
        raise ValueError(
            f"candidate {outside[0]} is not an item index: the catalog has items "
            f"0..{catalog.n_items - 1}"
        )
    mask[chosen.astype(np.int64)] = True
    return mask
