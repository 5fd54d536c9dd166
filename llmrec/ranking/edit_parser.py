"""Edits parsed from English, and back: "more thrillers, no horror, only comedies until March".

A clause, between commas, says amounts and categories: an amount before its categories ("less drama
and war") or after them ("drama a bit less"). A clause without an amount continues the one before;
an end ("until March", "for 2 weeks") holds for its whole clause. "Only" mutes what no other clause
names. Quotes make any words a name. A clause with a word that is not understood is not understood
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
        """The words, why they are not understood, and what may be meant."""
        near = f"; near: {', '.join(self.near)}" if self.near else ""
        return f"“{self.said}”: {self.why}{near}"


@dataclass(frozen=True)
class ParsedEdits:
    """The edits that a text asks for, and its issues; nothing is applied yet.

    Show `edit_sentences` of the edits, and the issues, before applying them.

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
        """Join the edits and issues of several texts, each once."""
        fields = zip(*((one.edits, one.assumed, one.issues) for one in several), strict=True)
        return cls(*(tuple(dict.fromkeys(chain(*field))) for field in fields))

    def require_edits(self) -> ParsedEdits:
        """Give itself; EditError with the issues if there are some and not one edit."""
        if self.issues and not self.edits:
            raise EditError("\n".join(issue.text for issue in self.issues))
        return self


def parse_edits(text: str, catalog: Catalog, at: np.datetime64) -> ParsedEdits:
    """Parse edits from English text; the same text always gives the same edits.

    Parameters
    ----------
    at
        The start of the forecast: "until March" is the next March after it.

    Raises
    ------
    EditError
        If two edits contradict each other, or the text is longer than 4,000 characters.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise EditError(
            f"the edits have {len(text):,} characters; write at most {MAX_TEXT_LENGTH:,}."
        )
    edits: list[Edit] = []
    only: dict[frozenset[str], Clause] = {}
    assumed: list[tuple[str, str]] = []
    issues = []
    for clause in split_clauses(text, CategoryNames.of(catalog.categories), at):
        try:
            until, pairs = clause.until(), clause.category_amounts()
            edits += [Edit(name, a.factor, until, a.lock) for name, a in pairs if not a.only]
        except EditError as error:
            near = dict.fromkeys(near for name in clause.names for near in name.match.near)
            issues.append(ParseIssue(clause.text, str(error), tuple(near)))
            continue
        assumed += [(name.text, name.category) for name in clause.names if not name.match.exact]
        if unmuted := frozenset(name for name, amount in pairs if amount.only):
            only[unmuted] = clause
    active_edits(edits, catalog)
    edits += _mute_others(only, {edit.category for edit in edits}, catalog)
    return ParsedEdits(tuple(dict.fromkeys(edits)), tuple(dict.fromkeys(assumed)), tuple(issues))


def parse_description_edits(
    description: str, edited: str, catalog: Catalog, at: np.datetime64
) -> ParsedEdits:
    """Parse the edits that a person wrote into a forecast's description: only what is new in it.

    Words that were deleted are an issue: less of a category has to be asked for. An edit may
    follow a sentence without a space.
    """
    before = description.split()
    ends = sorted({word for word in before if word[-1] in ".!?"}, key=len)
    after = [part for word in edited.split() for part in _split_after_end(word, ends)]
    added, deleted = [], []
    for kind, i, j, n, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            added.append(" ".join(after[n:m]))
            deleted.append(" ".join(before[i:j]))
    found = parse_edits("; ".join(filter(None, added)), catalog, at)
    why = "taking words out changes nothing; write what you want instead"
    issues = tuple(ParseIssue(words, why) for words in deleted if words)
    return replace(found, issues=found.issues + issues)


def match_category(text: str, catalog: Catalog) -> str:
    """Find the one category that a text names; EditError, with near ones, if there is none."""
    found = CategoryNames.of(catalog.categories).resolve(text)
    if found.category is None:
        near = ", ".join(found.near or catalog.categories[:3])
        raise EditError(f"no category, or more than one, is called {text[:80]!r}; near: {near}.")
    return found.category


def edit_sentences(edits: Sequence[Edit], catalog: Catalog) -> list[str]:
    """Write edits as plain sentences, which `parse_edits` parses into the same edits again.

    A sentence an edit; but if most categories are muted, "Only Comedy." says all of that in one.
    """
    edits = list(dict.fromkeys(edits))
    muted, unmuted = _edits_of_only(edits, catalog)
    sentences = []
    if muted:
        rest = [name for name in catalog.categories if name not in unmuted]
        expected = {Edit(name, 0.0, muted[0].until) for name in rest}
        sentences.append(_clearest_sentence(muted[0], unmuted, expected, catalog))
    single = [edit for edit in edits if edit not in muted]
    return sentences + [_clearest_sentence(edit, (), {edit}, catalog) for edit in single]


def _mute_others(
    only: Mapping[frozenset[str], Clause], edited: Set[str], catalog: Catalog
) -> list[Edit]:
    """Mute the categories that neither an "only" names nor another edit."""
    if len(only) > 1:
        clauses = " and ".join(f"“{clause.text}”" for clause in only.values())
        raise EditError(f"{clauses} contradict each other: say in one clause what not to mute.")
    return [
        Edit(name, 0.0, clause.until())
        for unmuted, clause in only.items()
        for name in catalog.categories
        if name not in unmuted | edited
    ]


def _split_after_end(word: str, ends: Sequence[str]) -> list[str]:
    """Split a word after the longest of the sentence ends that it begins with."""
    end = next((end for end in reversed(ends) if word.startswith(end)), "")
    return [part for part in (end, word[len(end) :]) if part]


def _edits_of_only(edits: Sequence[Edit], catalog: Catalog) -> tuple[list[Edit], list[str]]:
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
    unmuted = [name for name in left if name not in others] or left
    return (muted, unmuted) if unmuted and max(len(unmuted), 2) < len(muted) else ([], [])


def _clearest_sentence(
    edit: Edit, unmuted: Sequence[str], expected: Set[Edit], catalog: Catalog
) -> str:
    """Write a sentence without quotes if that is parsed as the expected edits, else with them."""
    plain = edit_sentence(edit, unmuted)
    quoted = edit_sentence(edit, unmuted, quoted=True)
    if '"' in plain:  # one that opens there could close in the next sentence
        return quoted
    try:
        parsed = parse_edits(plain, catalog, _ANY_TIME)
    except EditError:  # a category may be called "only"
        return quoted
    is_clear = set(parsed.edits) == expected and not (parsed.issues or parsed.assumed)
    return plain if is_clear else quoted
