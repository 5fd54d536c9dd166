"""The explanation of one item for one person: why it is listed, and what would change that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llmrec.data.periods import History
from llmrec.explain.cause_search import find_causes, find_past_effects
from llmrec.explain.causes import PastEffect
from llmrec.explain.counterfactual import RemovalCounterfactual, WhyNot, find_removal, why_not
from llmrec.explain.facts import format_percent
from llmrec.explain.item import (
    MIN_SHOWN_TILT,
    ItemExplanation,
    explain_item,
    to_plain_values,
)
from llmrec.explain.verify import check_change, check_item
from llmrec.forecast import Forecast
from llmrec.ranking.edits import Edit
from llmrec.ranking.ranking import Reranker, listed_rank, rank_of
from llmrec.ranking.removal import RemovalRanker

MIN_SHOWN_SHARE = 0.01


@dataclass(frozen=True)
class Explanation:
    """One item of one person's ranking, explained.

    Attributes
    ----------
    n_ranked
        Number of items that may be ranked; the first k are the list.
    item
        The reasons for its rank; None if it may not be ranked.
    change
        On the list: the smallest change that takes it off. Else: why it is not listed, and the
        smallest change that lists it.
    past
        What the past items that matter most do to its rank, those that lift it most first.
    item_id
        Of the item, whether it may be ranked or not.
    """

    k: int
    n_ranked: int
    item: ItemExplanation | None
    change: RemovalCounterfactual | WhyNot
    past: tuple[PastEffect, ...] = ()
    item_id: str = ""

    @property
    def text(self) -> str:
        """The whole explanation, one line a part (plain text, no markup)."""
        if self.item is None:
            return self.change.text
        item = self.item
        statements = [one.text for one in item.statements if one.text not in item.text]
        parts = ", ".join(f"{name} {part:+.2f}" for name, part in score_parts(item).items())
        lines = [f"{item.title}: rank {item.rank:,} of {self.n_ranked:,}.", item.text, *statements]
        if lifting := [f"{format_percent(one.share)} {one}" for one in self.lifting]:
            lines.append(f"What lifts it: {'; '.join(lifting)}.")
        if against := self.against:
            lines.append(f"What speaks against it: {'; '.join(against)}.")
        if item.evidence:
            events = dict.fromkeys(map(str, item.evidence))  # taken twice a day: cited once
            lines.append(f"Evidence: {'; '.join(events)}.")
        lines.append(f"Its score {item.score:.2f} is the sum of: {parts}.")
        return "\n".join([*lines, self.change.text])

    @property
    def lifting(self) -> tuple[PastEffect, ...]:
        """The past items that lift it: without each it does not rank higher; largest first."""
        rank = self.rank_by_score
        return tuple(
            one for one in self.past if one.share >= MIN_SHOWN_SHARE and one.rank_without >= rank
        )

    @property
    def lowering(self) -> tuple[PastEffect, ...]:
        """The past items that speak against it: without each it ranks higher."""
        rank = self.rank_by_score
        return tuple(one for one in self.past if one.effect < 0 and one.rank_without < rank)

    @property
    def rank_by_score(self) -> int:
        """Its rank, 1-based; 0 if it may not be ranked."""
        return (self.item.causes or self.item).rank if self.item else 0

    @property
    def against(self) -> list[str]:
        """What lowers the item: past items without which it ranks higher, and the tilt."""
        if self.item is None:
            return []
        found = [str(one) for one in self.lowering]
        if self.item.causes and self.item.causes.tilt_lifts:
            return found
        label = "edited forecast" if self.item.edited_shares else "forecast"
        parts = self.item.category_parts.items()
        tilts = [(name, part) for name, part in parts if part <= -MIN_SHOWN_TILT]
        return found + [f"the {label} of {name} ({part:.2f})" for name, part in tilts]

    def to_dict(self) -> dict[str, Any]:
        """Give the fields and the text, ready for JSON."""
        edits = [
            {**asdict(edit), "until": None if edit.until is None else str(edit.until)}
            for edit in self.change.edits
        ]
        change = {**asdict(self.change), "edits": edits, "text": self.change.text}
        is_listed = isinstance(self.change, RemovalCounterfactual)
        return {
            "k": self.k,
            "n_ranked": self.n_ranked,
            "item": self.item and self.item.to_dict(),
            "what_removes": change if is_listed else None,
            "why_not": None if is_listed else change,
            "past": to_plain_values([asdict(one) for one in self.past]),
            "text": self.text,
        }


def explain_ranked_item(
    item_idx: int,
    rerank: Reranker,
    k: int,
    history: History,
    forecast: Forecast,
    edits: Sequence[Edit] = (),
    removal: RemovalRanker | None = None,
) -> Explanation:
    """Explain an item's rank, and find what would change it by ranking again.

    Parameters
    ----------
    rerank
        Ranks by the forecast before the edits, see `make_reranker`.
    k
        Length of the list, >= 1; ValueError if it is less.
    forecast
        The forecast before the edits.
    edits
        Those of the ranking; the counterfactual change comes on top of them.
    removal
        Ranks the same without some past items; None: no cause is looked for.
    """
    now = rerank(edits)
    rank, listed = rank_of(now, item_idx), listed_rank(now, item_idx)
    causes, past = None, tuple[PastEffect, ...]()
    if removal and rank:
        (causes,) = find_causes(np.array([item_idx]), removal, rerank)
        past = find_past_effects(item_idx, removal, rerank)
    rest = history, forecast, edits, causes, removal.shelf if removal else "all"
    item = explain_item(now, rank - 1, *rest) if rank else None
    change: RemovalCounterfactual | WhyNot
    if listed and listed <= k:
        change = find_removal(item_idx, rerank, k, history.catalog, history, edits)
    else:
        change = why_not(item_idx, rerank, k, history.catalog, history, edits)
    return Explanation(k, len(now.item_idx), item, change, past, history.catalog.ids[item_idx])


def check_explanation(
    explanation: Explanation,
    item_idx: int,
    rerank: Reranker,
    history: History,
    forecast: Forecast,
    edits: Sequence[Edit] = (),
    removal: RemovalRanker | None = None,
) -> tuple[str, ...]:
    """Describe all errors of an explanation, see `check_item` and `check_change`; () if none.

    The parameters are those of `explain_ranked_item`.
    """
    now, errors = rerank(edits), []
    if explanation.n_ranked != len(now.item_idx):
        errors.append(f"{len(now.item_idx)} items may be ranked, not {explanation.n_ranked}")
    item_id = explanation.item and explanation.item.item_id
    if item_id != (history.catalog.item_ids[item_idx] if rank_of(now, item_idx) else None):
        errors.append(f"the explanation is not of {history.catalog.titles[item_idx]}")
    if explanation.item:
        errors += check_item(explanation.item, now, history, forecast, edits, removal)
    if removal and explanation.past:
        again = find_past_effects(item_idx, removal, rerank)
        if again != explanation.past:
            errors.append("past items do something else to its rank when ranked again")
    if error := check_change(explanation.change, item_idx, rerank, history, edits):
        errors.append(error)
    return tuple(errors)


def score_parts(item: ItemExplanation) -> dict[str, float]:
    """Give the contributions that sum to an item's score, by name; the forecast's last."""
    label = "edited forecast" if item.edited_shares else "forecast"
    tilts = {f"{label} of {name}": part for name, part in item.category_parts.items()}
    return {**item.scorer_parts, **tilts}
