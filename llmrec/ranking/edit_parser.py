"""Wishes in words, read as edits: "more thrillers, no horror, only comedies until March".

A clause, between commas, says amounts and categories: an amount before its categories ("less drama
and war") or after them ("drama a bit less"). A clause without an amount carries on the one before;
an end ("until March", "for 2 weeks") holds for its whole clause. "Only" mutes what no wish names.
Quotes make any words a name. A clause with a word that is not understood is not understood
at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from itertools import chain

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.errors import EditError
from llmrec.ranking.edit_clauses import CategoryNames, Clause, split_clauses
from llmrec.ranking.edits import Edit, active_edits, edit_sentence

MAX_TEXT_LENGTH = 4_000  # characters
_ANY_TIME = np.datetime64(0, "ms")  # sentences write their years


@dataclass(frozen=True)
class ParseIssue:
    """Words that are not understood, and why; ``near`` names categories that may be meant."""

    said: str
    why: str
    near: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What was said, why that is not understood, and what may be meant."""
        near = f"; near: {', '.join(self.near)}" if self.near else ""
        return f"“{self.said}”: {self.why}{near}"


@dataclass(frozen=True)
class ParsedEdits:
    """What a text asks for. Nothing is applied: first show `edit_sentences`, and the issues.

    Attributes
    ----------
    edits
        What was understood.
    assumed
        Words that are not quite a category's name, and the one category they were taken for.
    issues
        What was not understood.
    """

    edits: tuple[Edit, ...]
    assumed: tuple[tuple[str, str], ...] = ()
    issues: tuple[ParseIssue, ...] = ()

    @classmethod
    def merge(cls, several: Sequence[ParsedEdits]) -> ParsedEdits:
        """Put what several texts ask for together, each thing once."""
        fields = zip(*((one.edits, one.assumed, one.issues) for one in several), strict=True)
        return cls(*(tuple(dict.fromkeys(chain(*field))) for field in fields))


def parse_edits(text: str, catalog: Catalog, at: np.datetime64) -> ParsedEdits:
    """Read edits from English text; the same text always gives the same edits.

    Parameters
    ----------
    at
        The start of the forecast: "until March" is the next March after it.

    Raises
    ------
    EditError
        If two wishes contradict each other, or the text is longer than 4,000 characters.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise EditError(
            f"the wishes have {len(text):,} characters; write at most {MAX_TEXT_LENGTH:,}."
        )
    edits: list[Edit] = []
    only: dict[frozenset[str], Clause] = {}
    taken_for: list[tuple[str, str]] = []
    misread = []
    for clause in split_clauses(text, CategoryNames.of(catalog.categories), at):
        try:
            until, pairs = clause.until(), clause.category_amounts()
            edits += [Edit(name, a.factor, until, a.lock) for name, a in pairs if not a.only]
        except EditError as error:
            near = dict.fromkeys(near for name in clause.names for near in name.found.near)
            misread.append(ParseIssue(clause.said, str(error), tuple(near)))
            continue
        taken_for += [(name.said, name.category) for name in clause.names if not name.found.exact]
        if kept := frozenset(name for name, amount in pairs if amount.only):
            only[kept] = clause
    active_edits(edits, catalog)
    edits += _muted_by(only, {edit.category for edit in edits}, catalog)
    return ParsedEdits(tuple(dict.fromkeys(edits)), tuple(dict.fromkeys(taken_for)), tuple(misread))


def parse_description_edits(
    description: str, edited: str, catalog: Catalog, at: np.datetime64
) -> ParsedEdits:
    """Read the edits that a person wrote into a forecast's description: only what is new in it.

    What was taken out is told as not understood: to say less of something is a wish of its own. A
    wish may follow a sentence without a space.
    """
    before = description.split()
    ends = sorted({word for word in before if word[-1] in ".!?"}, key=len)
    after = [part for word in edited.split() for part in _after_end(word, ends)]
    added, taken_out = [], []
    for kind, i, j, n, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            added.append(" ".join(after[n:m]))
            taken_out.append(" ".join(before[i:j]))
    found = parse_edits("; ".join(filter(None, added)), catalog, at)
    why = "taking words out changes nothing; write what you wish instead"
    out = tuple(ParseIssue(words, why) for words in taken_out if words)
    return replace(found, issues=found.issues + out)


def _after_end(word: str, ends: Sequence[str]) -> list[str]:
    """Cut off the longest of the ends that a word begins with."""
    end = next((end for end in reversed(ends) if word.startswith(end)), "")
    return [part for part in (end, word[len(end) :]) if part]


def match_category(said: str, catalog: Catalog) -> str:
    """Find the one category that words name; EditError names near ones if there is not just one."""
    found = CategoryNames.of(catalog.categories).resolve(said)
    if found.category is None:
        near = ", ".join(found.near or catalog.categories[:3])
        raise EditError(f"no category, or more than one, is called {said[:80]!r}; near: {near}.")
    return found.category


def edit_sentences(edits: Sequence[Edit], catalog: Catalog) -> list[str]:
    """Say edits in plain sentences, which `parse_edits` reads as the same edits again.

    A sentence an edit; but if most categories are muted, "Only Comedy." says all of that in one.
    """
    edits = list(dict.fromkeys(edits))
    muted, kept = _only(edits, catalog)
    said = []
    if muted:
        rest = [name for name in catalog.categories if name not in kept]
        expected = {Edit(name, 0.0, muted[0].until) for name in rest}
        said.append(_clearest(muted[0], kept, expected, catalog))
    single = [edit for edit in edits if edit not in muted]
    return said + [_clearest(edit, (), {edit}, catalog) for edit in single]


def _muted_by(
    only: Mapping[frozenset[str], Clause], spoken_of: Set[str], catalog: Catalog
) -> list[Edit]:
    """Mute what an "only" does not name, and no other wish either."""
    if len(only) > 1:
        said = " and ".join(f"“{clause.said}”" for clause in only.values())
        raise EditError(f"{said} contradict each other: say in one wish what to keep.")
    return [
        Edit(name, 0.0, clause.until())
        for kept, clause in only.items()
        for name in catalog.categories
        if name not in kept | spoken_of
    ]


def _only(edits: Sequence[Edit], catalog: Catalog) -> tuple[list[Edit], list[str]]:
    """Give the edits that "only" says in one sentence, and the categories that it names; or none.

    They mute, until one time, three or more categories, and more than it has to name.
    """
    mutes = [edit for edit in edits if edit.factor == 0 and not edit.lock]
    ends = [edit.until for edit in mutes]
    end = max(ends, key=ends.count, default=None)
    others = {edit.category for edit in edits if edit not in mutes or edit.until != end}
    muted = [edit for edit in mutes if edit.category not in others]
    names = {edit.category for edit in muted}
    left = [name for name in catalog.categories if name not in names]
    kept = [name for name in left if name not in others] or left
    return (muted, kept) if kept and max(len(kept), 2) < len(muted) else ([], [])


def _clearest(edit: Edit, kept: Sequence[str], expected: Set[Edit], catalog: Catalog) -> str:
    """Write a sentence without quotes where that is read as the expected edits, else with them."""
    plain = edit_sentence(edit, kept)
    quoted = edit_sentence(edit, kept, quoted=True)
    if '"' in plain:  # one that opens there could close in the next sentence
        return quoted
    try:
        read = parse_edits(plain, catalog, _ANY_TIME)
    except EditError:  # a category may be called "only"
        return quoted
    clear = set(read.edits) == expected and not (read.issues or read.assumed)
    return plain if clear else quoted
