"""Everything about one item and one person: why it is listed, and what would move it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmrec.data.periods import History
from llmrec.explain.counterfactual import RemovalCounterfactual, WhyNot, find_removal, why_not
from llmrec.explain.item import ItemExplanation, explain_item
from llmrec.explain.verify import check_change, check_item
from llmrec.forecast import Forecast
from llmrec.ranking.edits import Edit
from llmrec.ranking.ranking import Reranker, listed_rank, rank_of


@dataclass(frozen=True)
class Explanation:
    """One item of one person's ranking, explained.

    Attributes
    ----------
    n_ranked
        How many items may be ranked; the first k are the list.
    item
        What is behind its place; None if it may not be ranked.
    change
        On the list: the smallest change that takes it off. Else: why it is not there, and the
        smallest change that puts it there.
    """

    k: int
    n_ranked: int
    item: ItemExplanation | None
    change: RemovalCounterfactual | WhyNot

    @property
    def text(self) -> str:
        """All of it in words, a line each part (plain text, no markup)."""
        if self.item is None:
            return self.change.text
        item = self.item
        said = [told.text for told in item.statements if told.text not in item.text]
        parts = ", ".join(f"{name} {part:+.2f}" for name, part in score_parts(item).items())
        lines = [f"{item.title}: rank {item.rank:,} of {self.n_ranked:,}.", item.text, *said]
        if item.evidence:
            events = dict.fromkeys(map(str, item.evidence))  # taken twice a day: said once
            lines.append(f"Evidence: {'; '.join(events)}.")
        lines.append(f"Its score {item.score:.2f} is the sum of: {parts}.")
        return "\n".join([*lines, self.change.text])

    def to_dict(self) -> dict[str, Any]:
        """Give the parts and the text, ready for JSON."""
        edits = [
            {**asdict(edit), "until": None if edit.until is None else str(edit.until)}
            for edit in self.change.edits
        ]
        change = {**asdict(self.change), "edits": edits, "text": self.change.text}
        on_list = isinstance(self.change, RemovalCounterfactual)
        return {
            "k": self.k,
            "n_ranked": self.n_ranked,
            "item": self.item and self.item.to_dict(),
            "what_removes": change if on_list else None,
            "why_not": None if on_list else change,
            "text": self.text,
        }


def explain_ranked_item(
    item_idx: int,
    rerank: Reranker,
    k: int,
    history: History,
    forecast: Forecast,
    edits: Sequence[Edit] = (),
) -> Explanation:
    """Explain an item's place, and find what would change it by ranking again.

    Parameters
    ----------
    rerank
        Ranks by the forecast before the edits, see `make_reranker`.
    k
        How long the list is, >= 1; ValueError if it is less.
    forecast
        What is explained: the forecast before the edits.
    edits
        They rank already, and are told of; the change that is found comes on top of them.
    """
    now = rerank(edits)
    rank, listed = rank_of(now, item_idx), listed_rank(now, item_idx)
    item = explain_item(now, rank - 1, history, forecast, edits) if rank else None
    change: RemovalCounterfactual | WhyNot
    if listed and listed <= k:
        change = find_removal(item_idx, rerank, k, history.catalog, history, edits)
    else:
        change = why_not(item_idx, rerank, k, history.catalog, history, edits)
    return Explanation(k, len(now.item_idx), item, change)


def check_explanation(
    explanation: Explanation,
    item_idx: int,
    rerank: Reranker,
    history: History,
    forecast: Forecast,
    edits: Sequence[Edit] = (),
) -> tuple[str, ...]:
    """Say all that does not hold, see `check_item` and `check_change`; () if all does.

    The parameters are those of `explain_ranked_item`.
    """
    now, wrong = rerank(edits), []
    if explanation.n_ranked != len(now.item_idx):
        wrong.append(f"{len(now.item_idx)} items may be ranked, not {explanation.n_ranked}")
    told = explanation.item and explanation.item.item_id
    if told != (history.catalog.item_ids[item_idx] if rank_of(now, item_idx) else None):
        wrong.append(f"what is explained is not the place of {history.catalog.titles[item_idx]}")
    if explanation.item:
        wrong += check_item(explanation.item, now, history, forecast, edits)
    if lie := check_change(explanation.change, item_idx, rerank, history, edits):
        wrong.append(lie)
    return tuple(wrong)


def score_parts(item: ItemExplanation) -> dict[str, float]:
    """Give the parts that sum to an item's score, by name; the forecast's last."""
    said = "edited forecast" if item.edited_shares else "forecast"
    tilts = {f"{said} of {name}": part for name, part in item.category_parts.items()}
    return {**item.scorer_parts, **tilts}
