"""A person's list under edits as plain values: what moved, and whether it was predicted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from llmrec.ranking.edit_parser import edit_sentences
from llmrec.ranking.effects import (
    NOTHING_LISTED,
    EditOutcome,
    outcome_verdict,
    rank_changes,
    strength_text,
)
from llmrec.session import UserSession


@dataclass(frozen=True)
class ListRow:
    """One item of the list: ``move`` says how it moved ("new", "was 7"), ``why`` why it is here."""

    rank: int
    item_id: str
    title: str
    categories: str
    move: str
    why: str


@dataclass(frozen=True)
class ListView:
    """The list that edits give, what they were, and whether it is the predicted one.

    Attributes
    ----------
    settings
        The edits and the strength in sentences.
    left
        Titles that were on the list before, and are no longer.
    nothing
        The sentence that stands for an empty list.
    verdict
        Whether ranking again gave what was predicted.
    """

    settings: str
    rows: tuple[ListRow, ...]
    left: tuple[str, ...]
    nothing: str
    verdict: str

    @classmethod
    def of(
        cls,
        session: UserSession,
        k: int = 10,
        *,
        reasons: bool = False,
        before: UserSession | None = None,
    ) -> ListView:
        """Rank with the session's edits.

        Parameters
        ----------
        reasons
            Whether rows say why they are on the list; with causes, which takes longer.
        before
            The session whose list is compared with; default: this one's without edits.
        """
        effect = session.effect()
        outcome, catalog = effect.verify(k), effect.catalog
        compared = outcome if before is None else _compare_lists(before, outcome)
        moves = rank_changes(compared)
        why = {one.item_id: one.why for one in session.recommend(k)} if reasons else {}
        rows = tuple(
            ListRow(
                rank=rank,
                item_id=catalog.ids[item],
                title=catalog.titles[item],
                categories=", ".join(catalog.categories_of(item)),
                move=moves.get(item, ""),
                why=why.get(catalog.ids[item], ""),
            )
            for rank, item in enumerate(outcome.listed, start=1)
        )
        said = [*edit_sentences(tuple(effect.edits.values()), catalog), strength_text(effect)]
        return cls(
            settings=" ".join(filter(None, said)) or "The list as forecast.",
            rows=rows,
            left=tuple(catalog.titles[item] for item in compared.left),
            nothing=NOTHING_LISTED.format(verb=session.history.verb),
            verdict=outcome_verdict(effect, outcome),
        )


def _compare_lists(before: UserSession, outcome: EditOutcome) -> EditOutcome:
    """Give an outcome's list with the moves from another session's list."""
    ranking = before.ranking(outcome.k)
    old, now = ranking.item_idx[~ranking.muted].tolist(), outcome.listed
    ranks = {item: (old.index(item) + 1, now.index(item) + 1) for item in now if item in old}
    return replace(
        outcome,
        entered=tuple(item for item in now if item not in old),
        left=tuple(item for item in old if item not in now),
        moved={item: pair for item, pair in ranks.items() if pair[0] != pair[1]},
    )
