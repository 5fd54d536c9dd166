"""Edits in English, cut into clauses of amounts, category names and ends; see `parse_edits`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from itertools import groupby

import numpy as np

from llmrec.data.calendar import PeriodLength, to_datetime64
from llmrec.errors import DataError, EditError
from llmrec.ranking.edits import MONTHS

_WORD = re.compile(r"[^\W_]+")
_MIN_SIMILARITY = 0.8  # of difflib's ratio: one letter wrong in five
_MIN_NEAR_SIMILARITY = 0.5
_GENERIC_WORDS = set(_WORD.findall("all any film films item items movie movies product products"))


@dataclass(frozen=True)
class CategoryMatch:
    """The category that words name.

    Attributes
    ----------
    category
        The one category they can mean; None if that is open, and ``near`` then names choices.
    exact
        Whether the words are its name, but for number, case and punctuation.
    """

    category: str | None
    exact: bool = False
    near: tuple[str, ...] = ()


class CategoryNames:
    """The categories of a catalog by the words that may stand for them."""

    def __init__(self, categories: Sequence[str]) -> None:
        self.categories = tuple(categories)
        self._stems = [{stem(word) for word in tokenize(name)} for name in categories]
        self._by_key: dict[str, list[str]] = {}
        for name in categories:
            if key := _stem_key(tokenize(name)):
                self._by_key.setdefault(key, []).append(name)
        self._max_words = max(len(tokenize(name)) for name in categories) + 1

    @classmethod
    @lru_cache(8)
    def of(cls, categories: tuple[str, ...]) -> CategoryNames:
        """Give the names of these categories, made once."""
        return cls(categories)

    def resolve(self, text: str) -> CategoryMatch:
        """Find the category that a text names: the very name, or else see `match`."""
        if text in self.categories:
            return CategoryMatch(text, exact=True)
        return self.match(tokenize(text))

    def match_length(self, words: Sequence[str], start: int) -> int:
        """Count the words from ``start`` on that name a category: the most there are, or 0."""
        stops = range(min(len(words), start + self._max_words), start, -1)
        return next((n - start for n in stops if _stem_key(words[start:n]) in self._by_key), 0)

    def match(self, words: Sequence[str]) -> CategoryMatch:
        """Find the category that words name: itself, the only one with those words, or the nearest.

        Never one of several: then, and if nothing is near enough, ``near`` names them.
        """
        key = _stem_key(words)
        if exact := self._by_key.get(key):
            same = [name for name in exact if tokenize(name) == list(words)]  # not "Cheeses"
            return _match_one(same or exact, exact=True)
        stems = {stem(word) for word in words} - _GENERIC_WORDS
        holding = [
            name for name, own in zip(self.categories, self._stems, strict=True) if stems <= own
        ]
        if stems and holding:
            return _match_one(holding)
        if close := get_close_matches(key, self._by_key, n=3, cutoff=_MIN_SIMILARITY):
            return _match_one([name for one in close for name in self._by_key[one]])
        near = get_close_matches(key, self._by_key, n=3, cutoff=_MIN_NEAR_SIMILARITY)
        return CategoryMatch(None, near=tuple(name for one in near for name in self._by_key[one]))


def tokenize(text: str) -> list[str]:
    """Split text into words in lower case; apostrophes join, other punctuation parts."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return _WORD.findall(plain.replace("\u2019", "'").replace("'", ""))


def stem(word: str) -> str:
    """Take the plural off an English word; what is left need not be one: "movies", "movy"."""
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    if word.endswith(("xe", "oe", "che", "she", "sse", "zze")):
        return word[:-1]
    return f"{word[:-2]}y" if word.endswith("ie") else word


def _stem_key(words: Sequence[str]) -> str:
    return "".join(map(stem, words))


def _match_one(names: Sequence[str], exact: bool = False) -> CategoryMatch:
    """Match the name if there is one only."""
    if len(names) == 1:
        return CategoryMatch(names[0], exact)
    return CategoryMatch(None, near=tuple(names))


@dataclass(frozen=True)
class Amount:
    """How much of a category: a factor of its share, exact if locked; or nothing but it."""

    factor: float
    lock: bool = False
    only: bool = False


@dataclass(frozen=True)
class NameSpan:
    """Words where a category's name is due, and the category that they match."""

    text: str
    match: CategoryMatch

    @property
    def category(self) -> str:
        """The category; EditError if there is not exactly one."""
        if self.match.category is None:
            raise EditError(f"“{self.text}” is not one category")
        return self.match.category


ClauseToken = Amount | NameSpan | np.datetime64 | EditError  # the last where a time is none

_PHRASES = {
    Amount(0.0): "no; no more; never; never again; not any; without; mute; hide; stop; zero",
    Amount(0.0, only=True): "only; just; nothing but",
    Amount(0.25): "much less; far less; a lot less; many fewer; far fewer; a lot fewer",
    Amount(0.5): "less; fewer; half as much; half as many; not so much; not so many; halve",
    Amount(0.7): "a bit less; a little less; slightly less; somewhat less; slightly fewer",
    Amount(1.4): "a bit more; a little more; slightly more; somewhat more; some more",
    Amount(2.0): "more; twice as much; twice as many; double",
    Amount(4.0): "much more; many more; far more; a lot more; lots more",
    Amount(0.5, lock=True): "exactly half as much; exactly half as many",
    Amount(2.0, lock=True): "exactly twice as much; exactly twice as many",
    Amount(
        1.0, lock=True
    ): "keep; lock; hold; as it is; as they are; unchanged; the same amount of",
}
_AMOUNTS = {
    tuple(phrase.split()): amount
    for amount, phrases in _PHRASES.items()
    for phrase in phrases.split("; ")
}
_MAX_AMOUNT_WORDS = max(map(len, _AMOUNTS))
_SKIPPED_WORDS = set(
    _WORD.findall(
        "a again also and any film films for from give i id in item items me movie movies my now "
        "of or please products see show some the to too us want we would"
    )
)

_NUMBER_WORDS = {"a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "six": 6}
# (?a:...): among all letters, "s" and "i" would also match the long s and the dotless i.
_COUNT_WORD = f"(?a:{'|'.join(_NUMBER_WORDS)})"
_NUMBER = r"[-+]?[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?"
_MONTH = "|".join(f"{name[:3]}(?:{name[3:]})?" for name in MONTHS)
_DAY = r"[0-9]{1,2}(?:st|nd|rd|th)?"
_YEAR = re.compile("[12][0-9]{3}")
_DATE = (
    rf"[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}(?:T[0-9:.]*[0-9])?|{_YEAR.pattern}"
    rf"|(?:{_DAY}\s+(?:of\s+)?)?(?:{_MONTH})\b(?:\s+{_DAY}\b)?(?:\s+{_YEAR.pattern})?"
)
_TOKEN = re.compile(
    rf"""
      "(?P<quoted>(?:[^"]|"")*)"
    | (?P<stop>[,;!?\n] | \.(?!\S) | \b(?<!nothing[ ])(?:but|then)\b)
    | \b(?:until|till)\s+(?P<until>{_DATE})(?!\w)
    | \bfor\s+(?P<count>[0-9]{{1,3}}|{_COUNT_WORD})\s+(?P<unit>day|week|month|year)s?\b
    | (?P<exactly>\bexactly\s+)?(?<!\w)(?P<times>{_NUMBER})\s*(?:times|x)\s+as\s+(?:much|many)\b
    | (?<!\w)(?P<percent>{_NUMBER})\s*(?:%|percent\b)\s*(?P<way>more|less|fewer)\b
    | (?P<word>[^\W_]+(?:['\u2019][^\W_]+)*)
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Clause:
    """Amounts, names and ends in the order of the words, and the words themselves."""

    text: str
    tokens: tuple[ClauseToken, ...]

    @property
    def names(self) -> list[NameSpan]:
        """The names, in order."""
        return [token for token in self.tokens if isinstance(token, NameSpan)]

    def until(self) -> np.datetime64 | None:
        """Give its end; EditError if it has two, or one that is no time."""
        ends = [token for token in self.tokens if isinstance(token, np.datetime64)]
        for token in self.tokens:
            if isinstance(token, EditError):
                raise token
        if len(ends) > 1:
            raise EditError("it has two ends")
        return ends[0] if ends else None

    def category_amounts(self) -> list[tuple[str, Amount]]:
        """Pair each category with the amount before it or, if a name comes first, after it.

        Raises
        ------
        EditError
            If a name is not one category's, or a name or an amount is without the other.
        """
        categories = {name: name.category for name in self.names}
        tokens = [token for token in self.tokens if isinstance(token, Amount | NameSpan)]
        if tokens and isinstance(tokens[0], NameSpan):
            tokens.reverse()
        amount, is_unused = None, False
        pairs: list[tuple[str, Amount]] = []
        for token in tokens:
            if isinstance(token, NameSpan):
                if amount is None:
                    name = categories[token]
                    raise EditError(f"how much {name}? say more, less, no, only or keep")
                pairs.append((categories[token], amount))
                is_unused = False
            elif token != amount:  # "keep drama as it is" says one amount twice
                if is_unused:
                    raise EditError("two amounts come together")
                amount, is_unused = token, True
        if is_unused or not pairs:
            raise EditError("it names no category; quote a name that is a common word")
        return pairs

    def continues(self, before: Clause) -> bool:
        """Whether it only adds known names, or an end, to the clause before it."""
        has_amount = any(isinstance(token, Amount) for token in self.tokens)
        names = (*before.names, *self.names)
        return not has_amount and all(name.match.category is not None for name in names)


def split_clauses(text: str, names: CategoryNames, at: np.datetime64) -> list[Clause]:
    """Cut a text into clauses; one that continues the clause before it is joined to that one."""
    found: list[Clause] = []
    for part, matches in _split_parts(text):
        clause = Clause(part, tuple(_clause_tokens(matches, names, at)))
        if found and clause.continues(found[-1]):
            before = found.pop()
            clause = Clause(f"{before.text}, {part}", before.tokens + clause.tokens)
        if clause.tokens:
            found.append(clause)
    return found


def _split_parts(text: str) -> Iterator[tuple[str, list[re.Match[str]]]]:
    """Cut at commas, stops and the like; each part with the matches of `_TOKEN` in it."""
    start, matches = 0, []
    for match in _TOKEN.finditer(text):
        if match.lastgroup != "stop":
            matches.append(match)
            continue
        yield text[start : match.start()].strip(), matches
        start, matches = match.end(), []
    yield text[start:].strip(), matches


def _clause_tokens(
    matches: Sequence[re.Match[str]], names: CategoryNames, at: np.datetime64
) -> Iterator[ClauseToken]:
    for is_words, run in groupby(matches, key=lambda match: match.lastgroup == "word"):
        if is_words:
            yield from _parse_words([match[0] for match in run], names)
        else:
            yield from (_parse_match(match, names, at) for match in run)


def _parse_match(match: re.Match[str], names: CategoryNames, at: np.datetime64) -> ClauseToken:
    if match["until"]:
        return _parse_date(match["until"], at)
    if match["unit"]:
        n = _NUMBER_WORDS.get(match["count"].lower()) or int(match["count"])
        if n == 0:
            return EditError(f"“{match[0]}” is no time at all; say at least 1 {match['unit']}")
        unit = match["unit"].lower()
        n, code = {"week": (7 * n, "D"), "year": (12 * n, "M")}.get(unit, (n, match["unit"][0]))
        return PeriodLength.parse(f"{n}{code}").shift(at, 1)
    if match["times"]:
        return Amount(float(match["times"]), lock=match["exactly"] is not None)
    if match["percent"]:
        sign = 1 if match["way"].lower() == "more" else -1
        return Amount((100 + sign * float(match["percent"])) / 100)
    name = match["quoted"].replace('""', '"')
    return NameSpan(name, names.resolve(name))


def _parse_words(words: Sequence[str], names: CategoryNames) -> Iterator[ClauseToken]:
    """Find amounts where the words say one, names elsewhere; the longer of both if they overlap."""
    plain = ["".join(tokenize(word)) for word in words]
    start, name = 0, 0  # words name:start are one name so far
    while start < len(plain):
        n_name, n_amount = names.match_length(plain, start), _amount_length(plain, start)
        is_skipped = plain[start] in _SKIPPED_WORDS
        if n_name > max(n_amount, is_skipped) or not (n_amount or is_skipped):
            start += max(n_name, 1)
            continue
        if name < start:
            yield NameSpan(" ".join(words[name:start]), names.match(plain[name:start]))
        if n_amount:
            yield _AMOUNTS[tuple(plain[start : start + n_amount])]
        start += max(n_amount, 1)
        name = start
    if name < len(plain):
        yield NameSpan(" ".join(words[name:]), names.match(plain[name:]))


def _amount_length(plain: Sequence[str], start: int) -> int:
    """Count the words from ``start`` on that say an amount: the most there are, or 0."""
    lengths = range(_MAX_AMOUNT_WORDS, 0, -1)
    return next((n for n in lengths if tuple(plain[start : start + n]) in _AMOUNTS), 0)


def _parse_date(text: str, at: np.datetime64) -> np.datetime64 | EditError:
    """Parse a date; without a year it is the next one after ``at``."""
    if _YEAR.search(text):
        try:
            return to_datetime64(text.upper())
        except DataError:
            return EditError(f"there is no {text}")
    first = int(str(at.astype("datetime64[Y]")))
    for year in range(first, first + 9):  # 29 February is at most 8 years off
        found = _parse_date(f"{text} {year}", at)
        if not isinstance(found, EditError) and found > at:
            return found
    return EditError(f"there is no {text}")
