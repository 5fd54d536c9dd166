"""Which category a person means: whatever the number, case, punctuation or near spelling."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+")
_CLOSE = 0.8  # of difflib's ratio: one letter wrong in five
_NEAR = 0.5
_SAID = {"all", "any", "film", "films", "item", "items", "movie", "movies", "product", "products"}


@dataclass(frozen=True)
class Found:
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
        self._stems = [{stem(word) for word in words(name)} for name in categories]
        self._by_key: dict[str, list[str]] = {}
        for name in categories:
            if key := _key(words(name)):
                self._by_key.setdefault(key, []).append(name)
        self._longest = max(len(words(name)) for name in categories) + 1

    @classmethod
    @lru_cache(8)
    def of(cls, categories: tuple[str, ...]) -> CategoryNames:
        """Give the names of these categories, made once."""
        return cls(categories)

    def named(self, text: str) -> Found:
        """Find the category that a text names: the very name, or else see `find`."""
        return Found(text, exact=True) if text in self.categories else self.find(words(text))

    def named_at(self, said: Sequence[str], start: int) -> int:
        """Count the words from ``start`` on that name a category: the most there are, or 0."""
        stops = range(min(len(said), start + self._longest), start, -1)
        return next((n - start for n in stops if _key(said[start:n]) in self._by_key), 0)

    def find(self, said: Sequence[str]) -> Found:
        """Find the category that words name: itself, the only one with those words, or the nearest.

        Never one of several: then, and if nothing is near enough, ``near`` names them.
        """
        key = _key(said)
        if exact := self._by_key.get(key):
            same = [name for name in exact if words(name) == list(said)]  # "Cheese", not "Cheeses"
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
        return Found(None, near=tuple(name for one in near for name in self._by_key[one]))


def words(text: str) -> list[str]:
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


def _only(names: Sequence[str], exact: bool = False) -> Found:
    return Found(names[0], exact) if len(names) == 1 else Found(None, near=tuple(names))
