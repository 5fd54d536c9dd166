"""The smallest factors on an item's categories that list it, or that take it off a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.errors import EditError
from llmrec.explain.factor_verdicts import (
    LISTED,
    NOT_LISTED,
    UNKNOWN,
    Verdicts,
    verdicts_by_factor,
)
from llmrec.ranking.edits import MAX_FACTOR, Edit, apply_edits, compose_edits
from llmrec.ranking.ranking import Ranking, Reranker, listed_rank
from llmrec.types import FloatArray


@dataclass(frozen=True, eq=False)
class FactorSearch:
    """Searches the factors on categories that list an item, or take it off the first k.

    Where a larger factor can do no worse the search halves, and ranks under each factor. Elsewhere
    `verdicts_by_factor` tells most factors apart; what is found, and the factor next to it, are
    ranked, and if that gives something else, so are all.

    Attributes
    ----------
    now
        All items that may be ranked, under the edits; the item may be listed.
    edits, at
        Those that factors come on top of; the time at which they are in force, None: any.
    """

    item_idx: int
    k: int
    rerank: Reranker
    now: Ranking
    catalog: Catalog
    edits: Sequence[Edit]
    at: np.datetime64 | None

    def compose(self, names: Sequence[str], factor: float) -> tuple[Edit, ...]:
        """Give the edits with a factor on categories on top; EditError if it is too large."""
        return compose_edits(self.edits, names, factor, self.at)

    def is_listed(self, names: Sequence[str], factor: float) -> bool:
        """Rank again, and tell whether the item is among the first k; errors: see `apply_edits`."""
        ranking = self.rerank(self.compose(names, factor), self.k)
        return listed_rank(ranking, self.item_idx) is not None

    def smallest_change(self, names: Sequence[str]) -> tuple[str, float] | None:
        """Give the category that needs the least change to take the item off, and its factor.

        Factors are below 1, to 0.01; None if none takes it off.
        """

        def is_removed(name: str, hundredths: int) -> bool:
            try:
                return not self.is_listed((name,), hundredths / 100)
            except EditError:  # no other category may take the share that it loses
                return False

        if len(names) == 1:
            hundredths = _bisect_change(lambda tried: is_removed(names[0], tried))
            return None if hundredths is None else (names[0], hundredths / 100)
        # Items with more of the category fall faster: with one of several categories a rank may
        # rise as well as fall, so all hundredths are tried.
        tried = [(name, hundredths) for hundredths in range(99, -1, -1) for name in names]
        verdicts = {name: self._verdicts((name,), np.arange(100) / 100) for name in names}

        def removes(name: str, hundredths: int) -> bool:
            verdict = verdicts[name][hundredths]
            return is_removed(name, hundredths) if verdict == UNKNOWN else verdict == NOT_LISTED

        found = next((change for change in tried if removes(*change)), None)
        if found is not None:
            name, hundredths = found
            before = (name, hundredths + 1)
            if not is_removed(*found) or (before in tried and is_removed(*before)):
                found = next((change for change in tried if is_removed(*change)), None)
        return None if found is None else (found[0], found[1] / 100)

    def largest_factor(self, names: Sequence[str]) -> float:
        """Give the largest factor, to 0.01 and up to 100, that can be applied with the edits."""

        def applies(hundredths: int) -> bool:
            try:
                composed = self.compose(names, hundredths / 100)
                apply_edits(self.now.forecast, composed, self.catalog, self.at)
            except EditError:  # a product beyond 100, or locked shares beyond the whole
                return False
            return True

        on, off = 100, round(100 * MAX_FACTOR)
        if applies(off):
            return MAX_FACTOR
        while off - on > 1:
            middle = (on + off) // 2
            on, off = (middle, off) if applies(middle) else (on, middle)
        return on / 100

    def smallest_factor(self, names: Sequence[str], most: float) -> float | None:
        """Give the smallest factor on the categories together that lists the item, to 1 %.

        None if no factor up to ``most`` does.
        """

        def is_listed(factor: float) -> bool:
            return self.is_listed(names, factor)

        if len(names) == 1 or not any(edit.lock for edit in self.edits):
            return _bisect_factor(is_listed, most)
        # Some of several categories may be locked: a larger factor may then lower the item as well
        # as raise it, so all steps of 1 % are tried.
        steps = _factor_steps(most)
        verdicts = dict(zip(steps, self._verdicts(names, np.array(steps)), strict=True))

        def lists(factor: float) -> bool:
            verdict = verdicts[factor]
            return is_listed(factor) if verdict == UNKNOWN else verdict == LISTED

        found = next(filter(lists, steps), None)
        before = steps[-1:] if found is None else steps[: steps.index(found)][-1:]
        if any(map(is_listed, before)) or not (found is None or is_listed(found)):
            found = next(filter(is_listed, steps), None)
        return found

    def _verdicts(self, names: Sequence[str], factors: FloatArray) -> Verdicts:
        rest = self.catalog, self.edits, self.at, names, factors
        return verdicts_by_factor(self.now, self.item_idx, self.k, *rest)


def _bisect_change(removes: Callable[[int], bool]) -> int | None:
    """Give the most hundredths of a category that take an item off; None if 0 does not."""
    if not removes(0):
        return None
    off, on = 0, 100
    while on - off > 1:
        middle = (on + off) // 2
        off, on = (middle, on) if removes(middle) else (off, middle)
    return off


def _bisect_factor(lists: Callable[[float], bool], most: float) -> float | None:
    """Bisect the logarithm of the factor on a grid of 0.01: the factor in the text was ranked with.

    None if the largest does not list the item.
    """
    low, high = 1.0, most
    if not lists(high):
        return None
    while high / low > 1.01:
        middle = round(sqrt(low * high), 2)
        low, high = (low, middle) if lists(middle) else (middle, high)
    return high


def _factor_steps(most: float) -> list[float]:
    """Give factors above 1, on a grid of 0.01, each 1 % more than the one before."""
    hundredths, found = 101, []
    while hundredths <= round(100 * most):
        found.append(hundredths / 100)
        hundredths = max(hundredths + 1, round(1.01 * hundredths))
    return found
