"""What a page of a person shows, as its address has it: edits, strength, removed items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.errors import EditError
from llmrec.ranking.edit_parser import ParsedEdits, edit_sentences, parse_edits
from llmrec.ranking.edits import Edit

FACTOR, MUTE, LOCK = "factor:", "mute:", "lock:"
MAX_SLIDERS = 8  # of one wish; the edits of one that has more stay a sentence
SAME_STRENGTH = 0.025  # half a step of its slider


@dataclass(frozen=True)
class PageState:
    """The settings of a person's page. They are its address, so that a page can be shared.

    Attributes
    ----------
    edits
        Of the sliders: one a category, without an end.
    wishes
        Sentences of other edits, as `edit_sentences` writes them.
    strength
        How hard the list is tilted; None: as fitted.
    removed
        Ids of items that the list is made without, as if the person had never taken them.
    hindsight
        Whether to show what happened.
    text
        A wish that is not applied yet.
    """

    edits: tuple[Edit, ...] = ()
    wishes: tuple[str, ...] = ()
    strength: float | None = None
    removed: tuple[str, ...] = ()
    hindsight: bool = False
    text: str = ""

    @classmethod
    def read(cls, fields: Iterable[tuple[str, str]]) -> PageState:
        """Read the fields of an address or a form; EditError if a number is none or too large."""
        pairs = list(fields)
        found = {name: value for name, value in pairs}
        return cls(
            edits=_slider_edits(found),
            wishes=tuple(value for name, value in pairs if name == "wish" and value.strip()),
            strength=_number("strength", found["strength"]) if found.get("strength") else None,
            removed=tuple(dict.fromkeys(value for name, value in pairs if name == "removed")),
            hindsight=found.get("hindsight", "") == "on",
            text=found.get("text", "").strip(),
        )

    def query(self, **changes: object) -> str:
        """Give it as the query of an address, with some of its fields changed; "" if all is usual.

        Whatever is as forecast is left out, so that an address has what somebody changed.
        """
        state = replace(self, **changes)  # type: ignore[arg-type]
        pairs: list[tuple[str, str]] = []
        for edit in state.edits:
            pairs.append((FACTOR + edit.category, f"{edit.factor:g}"))
            if edit.lock:
                pairs.append((LOCK + edit.category, "on"))
        pairs += [("wish", wish) for wish in state.wishes]
        pairs += [("removed", item_id) for item_id in state.removed]
        if state.strength is not None:
            pairs.append(("strength", f"{state.strength:g}"))
        pairs += [("hindsight", "on")] * state.hindsight
        pairs += [("text", state.text)] * bool(state.text)
        return urlencode(pairs)

    def without_usual_strength(self, fitted: float) -> PageState:
        """Give the same without a strength that is the fitted one, as far as a slider can tell."""
        is_usual = self.strength is not None and abs(self.strength - fitted) <= SAME_STRENGTH
        return replace(self, strength=None) if is_usual else self

    def all_edits(self, catalog: Catalog, at: np.datetime64) -> tuple[Edit, ...]:
        """Give the edits of sliders and wishes; EditError if a wish is not understood."""
        parsed = ParsedEdits.merge(
            [ParsedEdits(()), *(parse_edits(wish, catalog, at) for wish in self.wishes)]
        )
        if parsed.issues:
            raise EditError("\n".join(issue.text for issue in parsed.issues))
        return (*self.edits, *parsed.edits)

    def with_edits(self, wanted: Sequence[Edit], catalog: Catalog, at: np.datetime64) -> PageState:
        """Give the state with a wish applied, in the place of earlier edits of its categories.

        Edits without an end move sliders, if they are few; others stay sentences.
        """
        named = {edit.category for edit in wanted}
        own = [edit for edit in self.edits if edit.category not in named]
        earlier = replace(self, edits=()).all_edits(catalog, at)
        sentences = [edit for edit in earlier if edit.category not in named]
        sliders = [edit for edit in wanted if edit.until is None]
        if len(sliders) > MAX_SLIDERS:
            sliders = []
        sentences += [edit for edit in wanted if edit not in sliders]
        return replace(
            self,
            edits=(*own, *sliders),
            wishes=tuple(edit_sentences(sentences, catalog)),
            text="",
        )


def _slider_edits(found: dict[str, str]) -> tuple[Edit, ...]:
    """Give an edit of each category whose slider is not at 1, or that is muted or locked."""
    names = dict.fromkeys(
        name.removeprefix(kind)
        for name in found
        for kind in (FACTOR, MUTE, LOCK)
        if name.startswith(kind)
    )
    edits = []
    for name in names:
        factor = _number(f"the factor of {name!r}", found.get(FACTOR + name) or "1")
        is_muted, lock = MUTE + name in found, LOCK + name in found
        edits.append(Edit(name, 0.0 if is_muted else factor, lock=lock))
    return tuple(edit for edit in edits if edit.lock or edit.factor != 1)


def _number(what: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise EditError(f"{what[:80]} is {text[:40]!r}; it should be a number.") from error
