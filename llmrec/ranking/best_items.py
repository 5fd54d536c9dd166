"""The items that lists of validation windows could hold, whose scores blends are weighed by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmrec.data.periods import History, Window
from llmrec.forecast import ItemScorer
from llmrec.ranking.blend import Blend, rankable_items, target_shares
from llmrec.ranking.blocks import MAX_SMALL_CATALOG, people_blocks
from llmrec.ranking.largest import places_of_largest
from llmrec.types import BoolArray, FloatArray, IntArray, RepeatPolicy

N_BEST = 100  # items a person, by the mean of all scorers, that are looked at


@dataclass(frozen=True, eq=False)
class BestItems:
    """Scores of the items that lists of validation windows could hold, and which were taken.

    Attributes
    ----------
    scores
        (n_scorers, n, n_candidates) float32.
    shares
        (n, n_candidates) shares of the target events; rows sum to 1 at most, or to 0. Items that
        were taken and are not among the best stay out: with them, and without all else that nobody
        ranks high, a low score would seem to be as good as a high one.
    possible
        (n, n_candidates) which places hold an item: people have different numbers of candidates.
    ideal
        (n,) DCG@k of the best possible list.
    k
        Length of the lists.
    """

    scores: npt.NDArray[np.float32]
    shares: FloatArray
    possible: BoolArray
    ideal: FloatArray
    k: int

    @classmethod
    def of(
        cls,
        scorers: Sequence[ItemScorer],
        windows: Sequence[Window],
        repeat: RepeatPolicy,
        k: int,
    ) -> BestItems:
        """Take from the windows that have a relevant item the best items of every scorer."""
        return cls.of_groups(scorers, [range(len(scorers))], windows, repeat, k)[0]

    @classmethod
    def of_groups(
        cls,
        scorers: Sequence[ItemScorer],
        groups: Sequence[Sequence[int]],
        windows: Sequence[Window],
        repeat: RepeatPolicy,
        k: int,
    ) -> list[BestItems]:
        """Give the same of each group of scorers: rising places among all of them.

        Every window is scored once, and of large catalogs few windows are at a time: what stays of
        them are the best items alone.
        """
        n_items = windows[0].history.catalog.n_items if windows else 1
        blocks = [
            _best_of_block(scorers, groups, windows[block], repeat, k)
            for block in people_blocks(len(windows), n_items, len(scorers))
        ]
        return [
            cls._joined([block[place] for block in blocks if block], len(group), k)
            for place, group in enumerate(groups)
        ]

    @classmethod
    def _joined(cls, parts: Sequence[BestItems], n_scorers: int, k: int) -> BestItems:
        """Put windows below each other; those of fewer candidates get empty places."""
        if not parts:
            nothing = np.empty((0, 0))
            return cls(np.empty((n_scorers, 0, 0), np.float32), nothing, nothing > 0, nothing, k)
        wide = max(part.scores.shape[2] for part in parts)
        empty = [((0, 0), (0, wide - part.scores.shape[2])) for part in parts]
        return cls(
            np.concatenate(
                [np.pad(one.scores, ((0, 0), *e)) for one, e in zip(parts, empty, strict=True)], 1
            ),
            np.concatenate([np.pad(one.shares, e) for one, e in zip(parts, empty, strict=True)]),
            np.concatenate([np.pad(one.possible, e) for one, e in zip(parts, empty, strict=True)]),
            np.concatenate([one.ideal for one in parts]),
            k,
        )

    @property
    def n(self) -> int:
        """Number of windows."""
        return len(self.ideal)

    def part(self, rows: BoolArray) -> BestItems:
        """Give some of the windows."""
        return BestItems(
            self.scores[:, rows], self.shares[rows], self.possible[rows], self.ideal[rows], self.k
        )

    def blended(self, weights: FloatArray) -> npt.NDArray[np.float32]:
        """(n, n_candidates) weighted sums of the scores; -inf where no item is."""
        total = np.tensordot(weights.astype(np.float32), self.scores, 1)
        return np.where(self.possible, total, np.float32(-np.inf))

    def ndcg(self, weights: FloatArray) -> float:
        """Mean NDCG@k of the lists under some weights."""
        return self.ndcg_of(self.blended(weights))

    def ndcg_of(self, blended: npt.NDArray[np.float32]) -> float:
        """Mean NDCG@k of the lists by (n, n_candidates) scores."""
        return float(self.each_ndcg(blended).mean())

    def each_ndcg(self, blended: npt.NDArray[np.float32]) -> FloatArray:
        """(n,) NDCG@k of the lists by (n, n_candidates) scores."""
        k = min(self.k, blended.shape[1])
        top = np.argpartition(-blended, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(blended, top, axis=1), axis=1, kind="stable")
        lists = np.take_along_axis(top, order, axis=1)
        hits = np.take_along_axis(self.shares, lists, axis=1) > 0
        hits &= np.take_along_axis(self.possible, lists, axis=1)
        return np.asarray(hits @ _discounts(k) / self.ideal)


def _discounts(k: int) -> FloatArray:
    """(k,) discounts of the places of a list."""
    return np.asarray(1 / np.log2(np.arange(2, k + 2)))


def _best_of_block(
    scorers: Sequence[ItemScorer],
    groups: Sequence[Sequence[int]],
    windows: Sequence[Window],
    repeat: RepeatPolicy,
    k: int,
) -> list[BestItems]:
    """Give `BestItems` of each group of scorers; none if no window has a relevant item."""
    shares = [target_shares(window, repeat) for window in windows]
    usable = [place for place, share in enumerate(shares) if share.any()]
    if not usable:
        return []
    histories = [windows[place].history for place in usable]
    taken = np.stack([shares[place] for place in usable])
    possible = np.stack([rankable_items(history, repeat) for history in histories])
    scores = np.stack([_float32_scores(scorer, histories) for scorer in scorers])
    tops = [_best_places(part, possible, k) for part in scores]
    ideal = np.cumsum(_discounts(k))[np.minimum((taken > 0).sum(axis=1), k) - 1]
    found = []
    for group in groups:
        first, last = group[0], group[-1] + 1
        # Places rise. Most groups are neighbours: of these no copy is made.
        own = scores[first:last] if len(group) == last - first else scores[list(group)]
        together = _best_places(own.mean(axis=0), possible, N_BEST)
        items, kept = _join_places([*(tops[place] for place in group), together], possible)
        rows = np.arange(len(items))[:, None]
        found.append(
            BestItems(
                scores[np.array(group)[:, None, None], rows, items],
                taken[rows, items] * kept,
                kept,
                ideal,
                k,
            )
        )
    return found


def _best_places(scores: npt.NDArray[np.float32], possible: BoolArray, n: int) -> IntArray:
    """(n_users, n) the possible items of largest score, in no order; all if there are fewer."""
    n_items = scores.shape[1]
    masked = np.where(possible, scores, np.float32(-np.inf))
    n = min(n, n_items)
    if n_items <= MAX_SMALL_CATALOG:  # of equal scores numpy takes those that it comes upon
        return np.argpartition(-masked, n - 1, axis=1)[:, :n].copy()  # not the rest of the order
    found = np.empty((len(masked), n), dtype=np.int64)
    for row, values in zip(found, masked, strict=True):
        places = places_of_largest(values, n)
        row[:] = places[np.argsort(-values[places], kind="stable")[:n]]
    return found


def _join_places(parts: Sequence[IntArray], possible: BoolArray) -> tuple[IntArray, BoolArray]:
    """(n_users, n_candidates) the possible items of all parts, and which places hold one."""
    chosen = np.zeros(possible.shape, dtype=np.bool_)
    for part in parts:
        np.put_along_axis(chosen, part, True, axis=1)
    chosen &= possible
    items = np.nonzero(chosen)[1]
    sizes = chosen.sum(axis=1)
    kept = np.arange(sizes.max()) < sizes[:, None]
    found = np.zeros(kept.shape, dtype=np.int64)
    found[kept] = items
    return found, kept


def _float32_scores(scorer: ItemScorer, histories: Sequence[History]) -> npt.NDArray[np.float32]:
    """(n_users, n_items) a scorer's checked scores in single precision."""
    return np.asarray(Blend((scorer,), (1.0,)).weighted_scores(histories)[0], dtype=np.float32)
