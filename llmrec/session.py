"""UserSession: one person's history, forecast, edits and ranked items, each computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from llmrec.errors import DataError, EditError
from llmrec.explain.cause_search import find_causes
from llmrec.explain.causes import Causes
from llmrec.explain.counterfactual import WhyNot, why_not
from llmrec.explain.explanation import Explanation, check_explanation, explain_ranked_item
from llmrec.explain.item import ItemExplanation, explain_item
from llmrec.explain.verify import check_item
from llmrec.forecast import Forecast
from llmrec.ranking.calibrated_rerank import rerank_calibrated
from llmrec.ranking.edit_parser import (
    ParsedEdits,
    ParseIssue,
    parse_description_edits,
    parse_edits,
)
from llmrec.ranking.edits import Edit, active_edits, apply_edits
from llmrec.ranking.effects import EditEffect, predict_effect
from llmrec.ranking.ranking import (
    Ranking,
    listed_rank,
    validate_k,
    validate_strength,
)
from llmrec.ranking.removal import RemovalRanker
from llmrec.session_inputs import Recommendation, SessionInputs, place_new_items
from llmrec.types import RepeatPolicy, Shelf

CALIBRATION_POOL = 1_000  # best items by score, of which a calibrated list is chosen


class UserSession:
    """One person, opened once: the forecast, a list, its reasons, and what edits do to it.

    Everything that a session says is about the same list, by score: that of its edits, strength and
    rule for repeats. It never changes; `edit` gives another one, which shares the forecast and the
    item scores.

    Usage::

        session = engine.session("1928")
        session.recommend(10)
        session.why_not("Scream 2 (1997)").text
        session.edit("more thrillers, no horror").effect().verify()

    Attributes
    ----------
    history
        The person's events before the cutoff.
    edits
        Changes to the forecast that the list follows; items of muted categories are left out.
    strength
        How hard the forecast tilts the list, in [0, 100]; edits, too, if it is not the fitted one.
    issues
        What of the edits given as text was not understood.
    """

    def __init__(
        self,
        inputs: SessionInputs,
        *,
        edits: Sequence[Edit] = (),
        strength: float | None = None,
        issues: Sequence[ParseIssue] = (),
    ) -> None:
        """Open it; EditError if edits contradict each other or the strength is out of bounds."""
        self.history, self._inputs = inputs.history, inputs
        self.edits = edits if isinstance(edits, str | Edit) else tuple(edits)
        active_edits(self.edits, self.history.catalog, self.history.cutoff)  # refuses what is none
        self.issues = tuple(issues)
        self.strength = inputs.strength if strength is None else strength
        self._new_strength = strength
        validate_strength(self.strength)

    def __repr__(self) -> str:
        """Name the person, and what the list follows."""
        return (
            f"UserSession({self.history.user_id!r}, {self.history.n_events} events, "
            f"edits={list(self.edits)}, strength={self.strength:g}, {len(self.issues)} issues)"
        )

    @property
    def repeat(self) -> RepeatPolicy:
        """Whether items already taken may be listed."""
        return self._inputs.repeat

    @property
    def shelf(self) -> Shelf:
        """Which items are ranked."""
        return self._inputs.shelf

    @cached_property
    def new_items(self) -> UserSession:
        """The session of the items that nobody has taken yet, under the same edits."""
        inputs, strength = self._inputs.of_new_items(), self._new_strength
        return UserSession(inputs, edits=self.edits, strength=strength, issues=self.issues)

    @property
    def forecast(self) -> Forecast:
        """The next period, in numbers and in checked words, before the edits."""
        return self._inputs.forecast

    @cached_property
    def edited_forecast(self) -> Forecast:
        """The forecast under the edits; its words are still those of `forecast`."""
        history = self.history
        return apply_edits(self.forecast, self.edits, history.catalog, history.cutoff)

    def edit(
        self, *edits: Edit | str, description: str = "", strength: float | None = None
    ) -> UserSession:
        """Give a session with more edits; this one stays as it is.

        Parameters
        ----------
        edits
            Edits, and texts to parse into edits ("more thrillers, no horror until March"). What of
            a text is not understood is listed in the new session's ``issues``.
        description
            The forecast's description as somebody changed it: what is new in it is parsed, too.
        strength
            How hard forecast and edits tilt the list, in [0, 100]; None: as here.

        Raises
        ------
        EditError
            If an edit contradicts another, earlier ones included, the strength is out of bounds, or
            nothing of the texts is understood.
        """
        for edit in edits:
            if not isinstance(edit, Edit | str):
                raise EditError(f"give edits one by one, edit(*edits), not {str(edit)[:80]}")
        catalog, cutoff = self.history.catalog, self.history.cutoff
        parsed = [
            parse_edits(edit, catalog, cutoff) if isinstance(edit, str) else ParsedEdits((edit,))
            for edit in edits
        ]
        if description:
            original = self.forecast.description
            parsed.append(parse_description_edits(original, description, catalog, cutoff))
        together = ParsedEdits.merge([ParsedEdits(()), *parsed]).require_edits()
        return UserSession(
            self._inputs,
            edits=(*self.edits, *together.edits),
            strength=self._new_strength if strength is None else strength,
            issues=(*self.issues, *together.issues),
        )

    def ranking(self, k: int | None = None) -> Ranking:
        """Rank the k best items (None: all that may be ranked), with the parts of their scores."""
        return self._rank(self.edits, k)

    def recommend(
        self,
        k: int = 10,
        *,
        calibrate: float = 0.0,
        model_words: bool = False,
        causes: bool = True,
        new_items: int = 0,
    ) -> list[Recommendation]:
        """Recommend k items, each with its explanation; fewer where fewer may be listed.

        Parameters
        ----------
        calibrate
            How far the list's mix of categories follows the edited forecast, in [0, 1]: 0 lists by
            score alone, 1 by the mix alone; see `llmrec.ranking.calibrated_rerank`. No score
            changes by it, and `effect`, `why`, `why_not` and `explain` are about the list by score.
        model_words
            Whether the language model rewords the explanations. Where its words do not hold, they
            are not shown and ``explanation.rejection`` says why.
        causes
            Whether reasons name causes, for which items are ranked again: with ten reasons a list
            takes two to three times as long. Else they say what an item has to do with history and
            forecast.
        new_items
            How many of the k nobody has taken yet: the best of these, evenly placed, with their
            rank among themselves in ``explanation.rank``. Fewer where the catalog has fewer.

        Raises
        ------
        DataError
            If ``new_items`` is not in 0..k.
        """
        if new_items:
            if not 0 <= new_items <= k:
                raise DataError(f"new_items is {new_items}; it should be 0 to {k}, the whole list")
            options: dict[str, Any] = {"calibrate": calibrate, "model_words": model_words}
            new = self.new_items.recommend(new_items, causes=causes, **options)
            return place_new_items(self.recommend(k, causes=causes, **options), new, k)
        ranking = self.ranking(max(k, CALIBRATION_POOL) if calibrate else k)
        if calibrate:
            wanted = self._inputs.within_platform(self.edited_forecast)
            ranking = rerank_calibrated(ranking, wanted, self.history.catalog, k, calibrate)
        places = np.flatnonzero(~ranking.muted)
        found: list[Causes | None] = [None] * len(places)
        if causes:
            found[:] = find_causes(ranking.item_idx[places], self.removal, self._rank)
        explanations = [
            explain_item(ranking, place, self.history, self.forecast, self.edits, one, self.shelf)
            for place, one in zip(places.tolist(), found, strict=True)
        ]
        if model_words:
            explanations = self._inputs.reword(explanations)
        return [Recommendation(e.item_id, e.title, e.rank, e.score, e) for e in explanations]

    def effect(self) -> EditEffect:
        """Predict what the edits, and the strength, do to every score; its `verify` ranks again.

        It compares with this person's session without edits, at the fitted strength.

        Raises
        ------
        EditError
            If the edits cannot be applied to the forecast.
        """
        inputs = self._inputs
        return predict_effect(
            self.forecast,
            self.edits,
            self.history,
            inputs.reranker,
            inputs.strength,
            self._new_strength,
            inputs.edit_strength,
        )

    def why(self, item: object, k: int = 10, *, model_words: bool = False) -> ItemExplanation:
        """Explain why an item is among the k best.

        Parameters
        ----------
        item
            Its id, or its whole title.
        model_words
            As for `recommend`.

        Raises
        ------
        DataError
            If the item is unknown (near ids are named), or is not among the k best.
        """
        validate_k(k)
        item_idx = self.history.catalog.item_index(item)
        place = listed_rank(self._full_ranking, item_idx)
        if place is None or place > k:
            where = "cannot be listed" if place is None else f"has rank {place:,}"
            raise DataError(
                f"{self.history.catalog.titles[item_idx]!r} {where} and is not among the {k} best: "
                "ask why_not(item), or of a longer list, why(item, k)."
            )
        (causes,) = find_causes(np.array([item_idx]), self.removal, self._rank)
        rest = self.history, self.forecast, self.edits, causes, self.shelf
        explanation = explain_item(self._full_ranking, place - 1, *rest)
        return self._inputs.reword([explanation])[0] if model_words else explanation

    def why_not(self, item: object, k: int = 10) -> WhyNot:
        """Say why an item is not among the k best, and the smallest edit that would list it.

        The answer's ``edits`` are the session's with those on top: ``engine.session(user,
        edits=answer.edits)`` lists it. Parameters and errors are those of `why`, but that an item
        among the k best is answered as such.
        """
        item_idx, catalog = self.history.catalog.item_index(item), self.history.catalog
        return why_not(item_idx, self._rank, k, catalog, self.history, self.edits)

    def explain(self, item: object, k: int = 10, *, model_words: bool = False) -> Explanation:
        """Explain an item in full, with the smallest edit that would list it, or take it off.

        The parameters are those of `why`; k >= 1.

        Raises
        ------
        DataError
            If the item is unknown; near ids are named.
        """
        item_idx = self.history.catalog.item_index(item)
        found = explain_ranked_item(
            item_idx, self._rank, k, self.history, self.forecast, self.edits, self.removal
        )
        if model_words and found.item:
            return replace(found, item=self._inputs.reword([found.item])[0])
        return found

    def check(self, explanation: Explanation | ItemExplanation) -> tuple[str, ...]:
        """Describe all errors of an explanation of this session's list; () if there is none.

        All is computed again from the log, the forecast and rankings, see `check_explanation` and
        `llmrec.explain.verify.check_item`. It is about the list by score: in one that is mixed to
        follow the forecast (``calibrate``) items have other ranks.
        """
        history, forecast = self.history, self.forecast
        if isinstance(explanation, ItemExplanation):
            if explanation.shelf == "new" and self.shelf == "all":
                return self.new_items.check(explanation)
            ranking = self._full_ranking
            return check_item(
                explanation, ranking, history, forecast, self.edits, self._second_removal
            )
        item_idx = history.catalog.item_index(explanation.item_id)
        rest = history, forecast, self.edits, self._second_removal
        return check_explanation(explanation, item_idx, self._rank, *rest)

    @cached_property
    def removal(self) -> RemovalRanker:
        """Ranks again as if the person had not taken some items, as the list is ranked."""
        inputs, new = self._inputs, self._new_strength
        return RemovalRanker(
            self.history,
            self.forecast,
            inputs.scorer,
            inputs.strength if new is None else new,
            inputs.edit_strength if new is None else new,
            self.repeat,
            self.edits,
            inputs.candidates,
            inputs.shelf,
        )

    @cached_property
    def _second_removal(self) -> RemovalRanker:
        """Ranks again what `removal` has ranked, to check it."""
        return replace(self.removal)

    @cached_property
    def _full_ranking(self) -> Ranking:
        ranking = self._inputs.reranker(self.edits, strength=self._new_strength)
        for array in (ranking.item_idx, ranking.scores, ranking.scorer_parts, ranking.muted):
            array.flags.writeable = False  # all answers of the session come from it
        return ranking

    def _rank(
        self, edits: Sequence[Edit], k: int | None = None, *, strength: float | None = None
    ) -> Ranking:
        """Rank under other edits: a `Reranker` that ranks under the session's own ones once."""
        strength = self._new_strength if strength is None else strength
        if k is None and tuple(edits) == self.edits and strength == self._new_strength:
            return self._full_ranking
        return self._inputs.reranker(edits, k, strength=strength)
