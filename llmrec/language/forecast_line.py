"""The forecast line: its labels, how it is rendered, parsed and constrained.

A forecast line is one punctuated line: integer percents of the heaviest categories, then ``other``,
then a description made of claims::

    Drama 31%, Comedy 22%, other 47%: Drama is rising, Comedy is fading.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import cycle

import numpy as np

from llmrec.data.names import clean_text, collapse_repeats
from llmrec.errors import ForecastParseError
from llmrec.forecast import Forecast, Source, StatementKind
from llmrec.language.grammar import (
    KIND_BY_PHRASE,
    PHRASES,
    PHRASES_BY_KIND,
    claims_grammar,
    description_grammar,
    line_grammar,
)
from llmrec.types import FloatArray, IntArray

OTHER = "other"
MAX_LINE_LENGTH = 4_000  # characters; a longer text is no forecast line
_UNSAFE = re.compile(r"[^\w &'/()\-+.]|_")
_ENTRY = re.compile(r"^(.+?)\s*\b([0-9]{1,3})\s?%$")
_BRACES_TO_PARENTHESES = str.maketrans("{}", "()")


class LineFormat:
    """Forecasts and claims to the text of a line, and back.

    Parameters
    ----------
    categories
        (n_categories,) names in the catalog's order.
    top
        Categories that a line names before ``other``.

    Attributes
    ----------
    labels
        (n_categories,) names of the categories in a line, see `make_labels`.
    """

    def __init__(self, categories: Sequence[str], *, top: int = 6) -> None:
        self.labels = make_labels(categories)
        self.top = min(top, len(self.labels))
        self._category_of_label = {label.casefold(): c for c, label in enumerate(self.labels)}

    def render(self, forecast: Forecast) -> str:
        """Render a forecast as a line for `parse`, percents rounded to integers."""
        text = forecast.description.translate(_BRACES_TO_PARENTHESES)
        description = clean_text(text, MAX_LINE_LENGTH // 2)
        return f"{self.render_shares(forecast.category_weights)}: {description}".rstrip(": ")

    def render_shares(self, category_weights: FloatArray) -> str:
        """Render the part of a line before the colon: ``Drama 31%, Comedy 22%, other 47%``."""
        order = np.argsort(-category_weights, kind="stable")[: self.top]
        shares = np.append(category_weights[order], 0.0)
        shares[-1] = max(0.0, 1.0 - shares.sum())
        percents = round_percents(shares)
        named = [
            f"{self.labels[c]} {percent}%"
            for rank, (c, percent) in enumerate(zip(order, percents[:-1], strict=True))
            if percent > 0 or rank == 0
        ]
        return ", ".join([*named, f"{OTHER} {percents[-1]}%"])

    def render_claims(
        self, claims: Iterable[tuple[StatementKind, int]], rng: np.random.Generator
    ) -> str:
        """Render (kind, category) claims as a line's description, in phrases that ``rng`` draws.

        A phrase comes twice only where a kind has more claims than phrases. `parse_claims` gives
        the claims back.
        """
        drawn = {kind: cycle(rng.permutation(texts)) for kind, texts in PHRASES_BY_KIND.items()}
        texts = [f"{self.labels[category]} {next(drawn[kind])}" for kind, category in claims]
        return f"{', '.join(texts)}." if texts else ""

    def parse(
        self, line: str, *, other_weights: FloatArray | None = None, concentration: float = 100.0
    ) -> Forecast:
        """Parse a forecast line, whoever wrote it.

        Percents are scaled to sum to 100 (a missing ``other`` is the remainder), a category named
        twice gets the sum, and ``other`` is divided among the unnamed categories.

        Parameters
        ----------
        other_weights
            (n_categories,) weights by which ``other`` is divided; uniform if None.
        concentration
            Of the forecast that is returned; a line holds none.

        Raises
        ------
        ForecastParseError
            With the reason: "empty", "too long", "malformed entry", "unknown category", "percent
            out of range", "nothing named".
        """
        text = " ".join(line.split())
        if not text:
            raise ForecastParseError("empty", "the line holds no text")
        if len(text) > MAX_LINE_LENGTH:
            raise ForecastParseError(
                "too long", f"{len(text)} characters, at most {MAX_LINE_LENGTH}"
            )
        shares, _, description = text.partition(":")
        named, other = self._parse_shares(shares)
        weights = self._divide_other(named, other, other_weights)
        return Forecast(weights, concentration, description.strip(), (), Source("line", "llm"))

    def parse_claims(
        self, description: str
    ) -> tuple[dict[tuple[StatementKind, int], str], list[str]]:
        """Parse the claims of a line's description.

        Returns
        -------
        Each (kind, category) that is claimed, in order, with its phrase; and the pieces that claim
        nothing, or nothing that was not claimed before.
        """
        found: dict[tuple[StatementKind, int], str] = {}
        unparsed: list[str] = []
        for piece in description.strip().rstrip(".").split(","):
            text = " ".join(piece.casefold().split())
            phrase = next(
                (phrase for phrase in KIND_BY_PHRASE if text.endswith(f" {phrase}")), None
            )
            category = self._category_of_label.get(text.removesuffix(f" {phrase}"))
            if phrase and category is not None and (KIND_BY_PHRASE[phrase], category) not in found:
                found[KIND_BY_PHRASE[phrase], category] = phrase
            elif text:
                unparsed.append(piece.strip())
        return found, unparsed

    def grammar(self) -> str:
        """Give the grammar of every line in this format, for constrained decoding."""
        return line_grammar(self.labels, PHRASES, max_entries=self.top)

    def description_grammar(self) -> str:
        """Give the grammar of any claims: what may follow the colon of a line."""
        return description_grammar(self.labels, PHRASES)

    def claims_grammar(self, claims: Iterable[tuple[StatementKind, int]]) -> str:
        """Give the grammar of some or all of these (kind, category) claims, in this order."""
        return claims_grammar(
            [
                [f"{self.labels[category]} {phrase}" for phrase in PHRASES_BY_KIND[kind]]
                for kind, category in claims
            ]
        )

    def _parse_shares(self, shares: str) -> tuple[FloatArray, float]:
        """(n_categories,) percents of the named categories, and the percent of ``other``."""
        named = np.zeros(len(self.labels))
        other = None
        for entry in shares.rstrip(" .").split(","):
            label, percent = self._parse_entry(entry.strip())
            if label == OTHER:
                other = (other or 0) + percent
            else:
                named[self._category_of_label[label]] += percent
        return named, float(max(0.0, 100 - named.sum()) if other is None else other)

    def _parse_entry(self, entry: str) -> tuple[str, int]:
        match = _ENTRY.match(entry)
        if not match:
            raise ForecastParseError("malformed entry", f"{entry[:60]!r} is not 'category 12%'")
        label, percent = match[1].casefold(), int(match[2])
        if label != OTHER and label not in self._category_of_label:
            raise ForecastParseError("unknown category", f"{match[1][:60]!r} is no label")
        if percent > 100:
            raise ForecastParseError("percent out of range", f"{entry[:60]!r}")
        return label, percent

    def _divide_other(
        self, named: FloatArray, other: float, other_weights: FloatArray | None
    ) -> FloatArray:
        shares = np.where(named == 0, 1.0 if other_weights is None else other_weights, 0.0)
        if shares.sum() == 0:
            other = 0.0  # everything is named: nothing is left that could be other
        if named.sum() + other == 0:
            raise ForecastParseError("nothing named", "all percents are 0")
        weights = named + (other * shares / shares.sum() if other else 0.0)
        return np.asarray(weights / weights.sum())


def make_labels(categories: Sequence[str]) -> tuple[str, ...]:
    """Give each category a tokenizer-safe label, a bijection even if case is ignored.

    Letters, digits, spaces and ``& ' / ( ) - + .`` stay; anything else becomes a space; at most 40
    characters; collisions and the reserved word ``other`` get a number.
    """
    labels: list[str] = []
    taken = {OTHER}
    numbers: dict[str, int] = {}  # of each stem the last that is taken: not to try all again
    for category in categories:
        written = collapse_repeats(unicodedata.normalize("NFKC", category))
        safe = " ".join(_UNSAFE.sub(" ", written).split())
        stem = safe[:40].strip(" .") if any(map(str.isalnum, safe)) else "category"
        label, n = stem, numbers.get(stem.casefold(), 1)
        while label.casefold() in taken:
            n += 1
            label = f"{stem} {n}"
        numbers[stem.casefold()] = n
        taken.add(label.casefold())
        labels.append(label)
    return tuple(labels)


def round_percents(shares: FloatArray) -> IntArray:
    """Round shares to integer percents that sum to 100, by their largest remainders."""
    scaled = shares / shares.sum() * 100
    whole: IntArray = np.floor(scaled + 1e-9).astype(np.int64)
    extra = np.argsort(-(scaled - whole), kind="stable")[: 100 - int(whole.sum())]
    whole[extra] += 1
    return whole
