"""Edits in English cut into clauses: amounts, category names and ends; see `parse_edits`."""

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
_CLOSE = 0.8  # of difflib's ratio: one letter wrong in five
_NEAR = 0.5
_SAID = {"all", "any", "film", "films", "item", "items", "movie", "movies", "product", "products"}


@dataclass(frozen=True)
class CategoryMatch:
    """What words were taken for.

    Attributes
    ----------
    category
        The one category they can mean; None if that is open, and ``near`` then names choices.
    exact
        Whether the words are its name, but for number, case and punctuation. If not, say what
        they were taken for.
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
            if key := _key(tokenize(name)):
                self._by_key.setdefault(key, []).append(name)
        self._longest = max(len(tokenize(name)) for name in categories) + 1

    @classmethod
    @lru_cache(8)
    def of(cls, categories: tuple[str, ...]) -> CategoryNames:
        """Give the names of these categories, made once."""
        return cls(categories)

    def resolve(self, text: str) -> CategoryMatch:
        """Find the category that a text names: the very name, or else see `find`."""
        return (
            CategoryMatch(text, exact=True)
            if text in self.categories
            else self.match(tokenize(text))
        )

    def match_length(self, said: Sequence[str], start: int) -> int:
        """Count the words from ``start`` on that name a category: the most there are, or 0."""
        stops = range(min(len(said), start + self._longest), start, -1)
        return next((n - start for n in stops if _key(said[start:n]) in self._by_key), 0)

    def match(self, said: Sequence[str]) -> CategoryMatch:
        """Find the category that words name: itself, the only one with those words, or the nearest.

        Never one of several: then, and if nothing is near enough, ``near`` names them.
        """
        key = _key(said)
        if exact := self._by_key.get(key):
            same = [
                name for name in exact if tokenize(name) == list(said)
            ]  # "Cheese", not "Cheeses"
            return _only(same or exact, exact=True)
        stems = {stem(word) for word in said} - _SAID
        holding = [
            name for name, own in zip(self.categories, self._stems, strict=True) if stems <= own
        ]
        if stems and holding:
            return _only(holding)
        if close := get_close_matches(key, self._by_key, n=3, cutoff=_CLOSE):
            return _only([name for one in close for name in self._by_key[one]])
        near = get_close_matches(key, self._by_key, n=3, cutoff=_NEAR)
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


def _key(said: Sequence[str]) -> str:
    return "".join(map(stem, said))


def _only(names: Sequence[str], exact: bool = False) -> CategoryMatch:
    return (
        CategoryMatch(names[0], exact)
        if len(names) == 1
        else CategoryMatch(None, near=tuple(names))
    )


@dataclass(frozen=True)
class Amount:
    """How much of a category: a factor, exactly or not; or nothing but it."""

    factor: float
    lock: bool = False
    only: bool = False


@dataclass(frozen=True)
class NameSpan:
    """Words where a category's name is due, and what they were found to be."""

    said: str
    found: CategoryMatch

    @property
    def category(self) -> str:
        """The category; EditError if there is not exactly one."""
        if self.found.category is None:
            raise EditError(f"“{self.said}” is not one category")
        return self.found.category


ClauseToken = Amount | NameSpan | np.datetime64 | EditError  # the last where a time is none

MORE, LESS, MUTE, KEEP = Amount(2.0), Amount(0.5), Amount(0.0), Amount(1.0, lock=True)
_PHRASES = {
    MUTE: "no; no more; never; never again; not any; without; mute; hide; stop; zero",
    Amount(0.0, only=True): "only; just; nothing but",
    Amount(0.25): "much less; far less; a lot less; many fewer; far fewer; a lot fewer",
    LESS: "less; fewer; half as much; half as many; not so much; not so many; halve",
    Amount(0.7): "a bit less; a little less; slightly less; somewhat less; slightly fewer",
    Amount(1.4): "a bit more; a little more; slightly more; somewhat more; some more",
    MORE: "more; twice as much; twice as many; double",
    Amount(4.0): "much more; many more; far more; a lot more; lots more",
    Amount(0.5, lock=True): "exactly half as much; exactly half as many",
    Amount(2.0, lock=True): "exactly twice as much; exactly twice as many",
    KEEP: "keep; lock; hold; as it is; as they are; unchanged; the same amount of",
}
_AMOUNTS = {
    tuple(phrase.split()): amount
    for amount, phrases in _PHRASES.items()
    for phrase in phrases.split("; ")
}
_LONGEST = max(map(len, _AMOUNTS))
_SKIPPED = frozenset(
    word
    for line in (
        "a again also and any film films for from give i id in item items me movie movies my now",
        "of or please products see show some the to too us want we would",
    )
    for word in line.split()
)

_COUNTS = {"a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "six": 6}
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
    | \bfor\s+(?P<count>[0-9]{{1,3}}|{"|".join(_COUNTS)})\s+(?P<unit>day|week|month|year)s?\b
    | (?P<exactly>\bexactly\s+)?(?<!\w)(?P<times>{_NUMBER})\s*(?:times|x)\s+as\s+(?:much|many)\b
    | (?<!\w)(?P<percent>{_NUMBER})\s*(?:%|percent\b)\s*(?P<way>more|less|fewer)\b
    | (?P<word>[^\W_]+(?:['\u2019][^\W_]+)*)
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Clause:
    """Amounts, names and ends in the order of the words, and the words themselves."""

    said: str
    pieces: tuple[ClauseToken, ...]

    @property
    def names(self) -> list[NameSpan]:
        """The names, in order."""
        return [piece for piece in self.pieces if isinstance(piece, NameSpan)]

    def until(self) -> np.datetime64 | None:
        """Give its end; EditError if it has two, or one that is no time."""
        ends = [piece for piece in self.pieces if isinstance(piece, np.datetime64)]
        for piece in self.pieces:
            if isinstance(piece, EditError):
                raise piece
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
        said = [piece for piece in self.pieces if isinstance(piece, Amount | NameSpan)]
        if said and isinstance(said[0], NameSpan):
            said.reverse()
        amount, waits = None, False
        pairs: list[tuple[str, Amount]] = []
        for piece in said:
            if isinstance(piece, NameSpan):
                if amount is None:
                    name = categories[piece]
                    raise EditError(f"how much {name}? say more, less, no, only or keep")
                pairs.append((categories[piece], amount))
                waits = False
            elif piece != amount:  # "keep drama as it is" says one amount twice
                if waits:
                    raise EditError("two amounts come together")
                amount, waits = piece, True
        if waits or not pairs:
            raise EditError("it names no category; quote a name that is a common word")
        return pairs

    def continues(self, before: Clause) -> bool:
        """Whether it only adds known names, or an end, to the clause before it."""
        names = (*before.names, *self.names)
        return not any(isinstance(piece, Amount) for piece in self.pieces) and all(
            name.found.category is not None for name in names
        )


def split_clauses(text: str, names: CategoryNames, at: np.datetime64) -> list[Clause]:
    """Cut a text into clauses; what carries on the clause before it is put to that one."""
    found: list[Clause] = []
    for said, tokens in _parts(text):
        clause = Clause(said, tuple(_pieces(tokens, names, at)))
        if found and clause.continues(found[-1]):
            before = found.pop()
            clause = Clause(f"{before.said}, {said}", before.pieces + clause.pieces)
        if clause.pieces:
            found.append(clause)
    return found


def _parts(text: str) -> Iterator[tuple[str, list[re.Match[str]]]]:
    """Cut at commas, stops and the like."""
    start, tokens = 0, []
    for token in _TOKEN.finditer(text):
        if token.lastgroup != "stop":
            tokens.append(token)
            continue
        yield text[start : token.start()].strip(), tokens
        start, tokens = token.end(), []
    yield text[start:].strip(), tokens


def _pieces(
    tokens: Sequence[re.Match[str]], names: CategoryNames, at: np.datetime64
) -> Iterator[ClauseToken]:
    for is_words, run in groupby(tokens, key=lambda token: token.lastgroup == "word"):
        if is_words:
            yield from _of_words([token[0] for token in run], names)
        else:
            yield from (_of_token(token, names, at) for token in run)


def _of_token(token: re.Match[str], names: CategoryNames, at: np.datetime64) -> ClauseToken:
    if token["until"]:
        return _end(token["until"], at)
    if token["unit"]:
        n = _COUNTS.get(token["count"].lower()) or int(token["count"])
        if n == 0:
            return EditError(f"“{token[0]}” is no time at all; say at least 1 {token['unit']}")
        n, unit = {"week": (7 * n, "D"), "year": (12 * n, "M")}.get(
            token["unit"].lower(), (n, token["unit"][0])
        )
        return PeriodLength.parse(f"{n}{unit}").shift(at, 1)
    if token["times"]:
        return Amount(float(token["times"]), lock=token["exactly"] is not None)
    if token["percent"]:
        sign = 1 if token["way"].lower() == "more" else -1
        return Amount((100 + sign * float(token["percent"])) / 100)
    name = token["quoted"].replace('""', '"')
    return NameSpan(name, names.resolve(name))


def _of_words(said: Sequence[str], names: CategoryNames) -> Iterator[ClauseToken]:
    """Read amounts where the words say one, names elsewhere; the longer of both if they overlap."""
    plain = ["".join(tokenize(word)) for word in said]
    start, name = 0, 0  # words name:start are one name so far
    while start < len(plain):
        n_named, n_amount = names.match_length(plain, start), _amount_at(plain, start)
        skipped = plain[start] in _SKIPPED
        if n_named > max(n_amount, skipped) or not (n_amount or skipped):
            start += max(n_named, 1)
            continue
        yield from _named(said[name:start], plain[name:start], names)
        if n_amount:
            yield _AMOUNTS[tuple(plain[start : start + n_amount])]
        start += max(n_amount, 1)
        name = start
    yield from _named(said[name:], plain[name:], names)


def _named(said: Sequence[str], plain: Sequence[str], names: CategoryNames) -> Iterator[NameSpan]:
    if said:
        yield NameSpan(" ".join(said), names.match(plain))


def _amount_at(plain: Sequence[str], start: int) -> int:
    """Count the words from ``start`` on that say an amount: the most there are, or 0."""
    lengths = range(_LONGEST, 0, -1)
    return next((n for n in lengths if tuple(plain[start : start + n]) in _AMOUNTS), 0)


def _end(said: str, at: np.datetime64) -> np.datetime64 | EditError:
    """Read a date; without a year it is the next one after ``at``."""
    if _YEAR.search(said):
        try:
            return to_datetime64(said.upper())
        except DataError:
            return EditError(f"there is no {said}")
    first = int(str(at.astype("datetime64[Y]")))
    for year in range(first, first + 9):  # 29 February is at most 8 years off
        found = _end(f"{said} {year}", at)
        if not isinstance(found, EditError) and found > at:
            return found
    return EditError(f"there is no {said}")
