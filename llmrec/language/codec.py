"""From a history to a prompt: versioned templates of ``prompts/``, rendered in a sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import cycle, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog, clean_text
from llmrec.data.dataset import Dataset
from llmrec.data.periods import ticks
from llmrec.errors import ForecastParseError
from llmrec.forecast import Forecast, Source, StatementKind
from llmrec.language.forecast_line import (
    _BRACES,
    _ENTRY,
    MAX_LINE_LENGTH,
    OTHER,
    _whole_percents,
    make_labels,
)
from llmrec.language.grammar import (
    KIND_BY_PHRASE,
    PHRASES_BY_KIND,
    claims_grammar,
    line_grammar,
    words_grammar,
)
from llmrec.language.tokenization import pooled_position
from llmrec.types import FloatArray, IntArray

if TYPE_CHECKING:
    from jinja2 import Template

    from llmrec.data.periods import History
    from llmrec.language.model import LanguageModel


def prompts_folder() -> Path:
    """Where the templates are: inside the installed package, or beside it in a checkout."""
    installed = Path(str(resources.files("llmrec"))) / "prompts"
    return installed if installed.is_dir() else installed.parent.parent / "prompts"


@cache
def load_template(name: str) -> Template:
    """Give a template by its file's name without the ending; unknown variables are errors."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # The output is a plain-text prompt, never HTML, so there is nothing to escape it for.
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(prompts_folder()), undefined=StrictUndefined, autoescape=False
    )
    return environment.get_template(f"{name}.jinja")


TITLE_LENGTH = 40
MAX_ITEMS_PER_TICK = 40  # items that a tick speaks of, the newest
PERIOD_TEMPLATE = (
    "forecast-v1"  # writes periods in words; later versions give each tick one position
)
MAX_SHARES_SHOWN = 8  # categories whose shares so far are told where a line is asked for


@dataclass(frozen=True)
class _Line:
    """One period of a prompt while it is being fitted to the budget."""

    start: np.datetime64
    end: np.datetime64
    counts: FloatArray
    titles: tuple[str, ...]

    def merged(self, later: _Line) -> _Line:
        return _Line(self.start, later.end, self.counts + later.counts, later.titles or self.titles)


class Codec:
    """Histories to prompts, forecasts to lines, lines to forecasts.

    Parameters
    ----------
    categories
        (n_categories,) names in the catalog's order.
    person, noun
        Who takes what: "viewer" and "films".
    template
        Name of a file in ``prompts/`` without its ending.
    top
        Categories that a line names before ``other``.
    budget, count_tokens
        A prompt holds at most ``budget`` tokens as ``count_tokens`` counts them (default: three
        characters a token); the oldest periods are merged until it does. Shares that are told
        where a line is asked for come on top.
    """

    def __init__(
        self,
        categories: Sequence[str],
        *,
        person: str = "person",
        noun: str = "items",
        template: str = "forecast-v1",
        top: int = 6,
        budget: int = 300,
        count_tokens: Callable[[str], int] = lambda text: -(-len(text) // 3),
    ) -> None:
        self.categories = tuple(categories)
        self.labels = make_labels(categories)
        self.person, self.noun, self.template = person, noun, template
        self.top, self.budget = min(top, len(self.labels)), budget
        self._count_tokens = count_tokens
        self._position = {label.casefold(): c for c, label in enumerate(self.labels)}

    def prompt(self, history: History) -> str:
        """Write a history as text that ends where the model is read."""
        if self.template == PERIOD_TEMPLATE:
            return self._by_period(history)
        return self._render(history, ticks=self._ticks(history), asked=False)

    def completion_prompt(self, history: History) -> str:
        """Write a history as text that the model goes on with a forecast line."""
        if self.template == PERIOD_TEMPLATE:
            return self._by_period(history)
        ticks = self._ticks(history)
        return self._render(history, ticks=ticks, asked=True, **self._so_far(history))

    def title(self, catalog: Catalog, item: int) -> str:
        """Give an item's title as prompts hold it."""
        return clean_text(catalog.titles[item], TITLE_LENGTH)

    def _by_period(self, history: History) -> str:
        lines = _lines(history)
        costs = [self._cost(history, line) for line in lines]
        room = self.budget - self._count_tokens(self._render(history, periods=[]))
        while len(lines) > 1 and sum(costs) > room:
            lines = [lines[0].merged(lines[1]), *lines[2:]]
            costs = [self._cost(history, lines[0]), *costs[2:]]
        return self._render(history, periods=[self._row(history, line) for line in lines])

    def _ticks(self, history: History) -> list[str]:
        """One bag a tick, oldest first; those beyond the budget become one that says their mix."""
        starts, offsets = ticks(history)
        room = self.budget - self._count_tokens(
            self._render(history, ticks=[], shares=[], gone=[], asked=True)
        )
        older = max(0, len(starts) - max(2, room))
        older += older > 0  # their own bag takes a position too
        bags = [
            self._tick(history, history.log.item_idx[first:stop])
            for first, stop in pairwise(offsets[older:])
        ]
        if older:
            items = history.log.item_idx[offsets[0] : offsets[older]]
            mix = self._shares(
                np.asarray(history.catalog.category_shares[items].sum(axis=0)).ravel()
            )
            bags.insert(0, pooled_position([f" before {_day(starts[older])}", f" {mix}"]))
        return bags

    def _so_far(self, history: History) -> dict[str, list[str]]:
        """Tell the heaviest categories' shares, earlier and lately, and what lately is not there.

        Both are of non-empty periods: shares of the earlier and the recent half of them, and what
        is missing in the last two. Nothing is told of a single one.
        """
        counts = history.category_counts
        counts = counts[counts.sum(axis=1) > 0]
        if len(counts) < 2:
            return {"shares": [], "gone": []}
        halves = [half.sum(axis=0) for half in np.split(counts, [len(counts) // 2])]
        percents = np.array([_whole_percents(half) for half in halves])
        totals = counts.sum(axis=0)
        heaviest = np.argsort(-totals, kind="stable")
        told = [c for c in heaviest[:MAX_SHARES_SHOWN] if totals[c]]
        gone = [c for c in heaviest if totals[c] and history.recently_absent[c]]
        return {
            "shares": [f"{self.labels[c]} {' '.join(f'{p[c]}%' for p in percents)}" for c in told],
            "gone": [self.labels[c] for c in gone[: MAX_SHARES_SHOWN // 2]],
        }

    def _tick(self, history: History, items: IntArray) -> str:
        parts = [part for item in items[-MAX_ITEMS_PER_TICK:] for part in self._item(history, item)]
        return pooled_position(parts or [" nothing"])

    def _item(self, history: History, item: int) -> list[str]:
        """Give an item's title and labels, a part of a bag each."""
        shares = history.catalog.category_shares
        held = shares.indices[shares.indptr[item] : shares.indptr[item + 1]]
        title = self.title(history.catalog, item)
        return [f" {text}" for text in (title, *(self.labels[category] for category in held))]

    def render(self, forecast: Forecast) -> str:
        """Write a forecast as a line: what `parse` reads back, percents rounded to integers."""
        words = clean_text(forecast.description.translate(_BRACES), MAX_LINE_LENGTH // 2)
        return f"{self.mix(forecast.category_weights)}: {words}".rstrip(": ")

    def mix(self, category_weights: FloatArray) -> str:
        """Write the part of a line before the words: ``Drama 31%, Comedy 22%, other 47%``."""
        order = np.argsort(-category_weights, kind="stable")[: self.top]
        shares = np.append(category_weights[order], 0.0)
        shares[-1] = max(0.0, 1.0 - shares.sum())
        percents = _whole_percents(shares)
        named = [
            f"{self.labels[c]} {percent}%"
            for rank, (c, percent) in enumerate(zip(order, percents[:-1], strict=True))
            if percent > 0 or rank == 0
        ]
        return ", ".join([*named, f"{OTHER} {percents[-1]}%"])

    def parse(
        self, line: str, *, rest: FloatArray | None = None, concentration: float = 100.0
    ) -> Forecast:
        """Read a forecast line, whoever wrote it.

        Percents are scaled to sum to 100 (a missing ``other`` is the remainder), a category named
        twice gets the sum, and ``other`` is spread over the unnamed categories.

        Parameters
        ----------
        rest
            (n_categories,) weights to spread ``other`` by; uniform if None.
        concentration
            Of the forecast that comes back; a line does not say how sure it is.

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
        entries, _, words = text.partition(":")
        named = np.zeros(len(self.labels))
        other = None
        for entry in entries.rstrip(" .").split(","):
            label, percent = self._entry(entry.strip())
            if label == OTHER:
                other = (other or 0) + percent
            else:
                named[self._position[label]] += percent
        other = max(0.0, 100 - named.sum()) if other is None else other
        weights = self._spread(named, float(other), rest)
        return Forecast(weights, concentration, words.strip(), (), Source("line", "llm"))

    def words(self, claims: Iterable[tuple[StatementKind, int]], rng: np.random.Generator) -> str:
        """Write (kind, category) claims as a line's words, in phrases that ``rng`` draws.

        A phrase comes twice only where a kind has more claims than phrases. `claims` reads back
        what was claimed.
        """
        drawn = {kind: cycle(rng.permutation(texts)) for kind, texts in PHRASES_BY_KIND.items()}
        said = [f"{self.labels[category]} {next(drawn[kind])}" for kind, category in claims]
        return f"{', '.join(said)}." if said else ""

    def claims(self, words: str) -> tuple[dict[tuple[StatementKind, int], str], list[str]]:
        """Read the claims in a line's words.

        Returns
        -------
        Each (kind, category) that is claimed, in order, with the phrase it is put in; and the
        pieces that claim nothing, or nothing that was not claimed before.
        """
        found: dict[tuple[StatementKind, int], str] = {}
        unread: list[str] = []
        for piece in words.strip().rstrip(".").split(","):
            text = " ".join(piece.casefold().split())
            phrase = next(
                (phrase for phrase in KIND_BY_PHRASE if text.endswith(f" {phrase}")), None
            )
            category = self._position.get(text.removesuffix(f" {phrase}"))
            if phrase and category is not None and (KIND_BY_PHRASE[phrase], category) not in found:
                found[KIND_BY_PHRASE[phrase], category] = phrase
            elif text:
                unread.append(piece.strip())
        return found, unread

    def grammar(self) -> str:
        """Every line this codec writes, as a grammar for constrained decoding."""
        return line_grammar(self.labels, tuple(KIND_BY_PHRASE), max_entries=self.top)

    def words_grammar(self) -> str:
        """Any claims: what may follow the colon of a line."""
        return words_grammar(self.labels, tuple(KIND_BY_PHRASE))

    def claims_grammar(self, claims: Iterable[tuple[StatementKind, int]]) -> str:
        """Give the grammar of some or all of these (kind, category) claims, in this order."""
        return claims_grammar(
            [
                [f"{self.labels[category]} {phrase}" for phrase in PHRASES_BY_KIND[kind]]
                for kind, category in claims
            ]
        )

    def _entry(self, entry: str) -> tuple[str, int]:
        match = _ENTRY.match(entry)
        if not match:
            raise ForecastParseError("malformed entry", f"{entry[:60]!r} is not 'category 12%'")
        label, percent = match[1].casefold(), int(match[2])
        if label != OTHER and label not in self._position:
            raise ForecastParseError("unknown category", f"{match[1][:60]!r} is no label")
        if percent > 100:
            raise ForecastParseError("percent out of range", f"{entry[:60]!r}")
        return label, percent

    def _spread(self, named: FloatArray, other: float, rest: FloatArray | None) -> FloatArray:
        unnamed = named == 0
        spread = np.where(unnamed, 1.0 if rest is None else rest, 0.0)
        if spread.sum() == 0:
            other = 0.0  # everything is named: nothing is left that could be other
        if named.sum() + other == 0:
            raise ForecastParseError("nothing named", "all percents are 0")
        weights = named + (other * spread / spread.sum() if other else 0.0)
        return np.asarray(weights / weights.sum())

    def _shares(self, counts: FloatArray) -> str:
        return self.mix(counts / counts.sum()) if counts.any() else "nothing"

    def _row(self, history: History, line: _Line) -> dict[str, str | tuple[str, ...]]:
        mix = self.mix(line.counts / line.counts.sum()) if line.counts.any() else "nothing"
        when = f"To {_day(line.end)}"
        if history.period_length.unit != "events":
            when = f"{_day(line.start)} t{when[1:]}"
        return {"when": when, "titles": line.titles, "mix": mix}

    def _cost(self, history: History, line: _Line) -> int:
        """Tokens of one line, with two to spare for how it joins its neighbours."""
        row = self._row(history, line)
        return (
            self._count_tokens(f"{row['when']}, such as {'; '.join(row['titles'])}: {row['mix']}.")
            + 2
        )

    def _render(self, history: History, **variables: Any) -> str:
        following = f"Next {history.period_length.n} {self.noun}"
        if history.period_length.unit != "events":
            following = f"Next {history.period_length}, from {_day(history.cutoff)}"
        about = {"person": self.person, "noun": self.noun, "next": following}
        return load_template(self.template).render(**about, **variables)


def _lines(history: History) -> list[_Line]:
    """One line a period from the first with events, oldest first; always at least one."""
    first = int(np.argmax(np.diff(history.offsets) > 0))
    return [
        _Line(period.start, period.end, history.category_counts[p], _titles(history, p))
        for p, period in enumerate(history.periods)
        if p >= first
    ]


def _titles(history: History, period: int) -> tuple[str, ...]:
    """Give up to two titles of a period's newest items."""
    items = history.log.item_idx[history.offsets[period] : history.offsets[period + 1]]
    newest = dict.fromkeys(items[::-1].tolist())
    return tuple(
        clean_text(history.catalog.titles[item], TITLE_LENGTH) for item in list(newest)[:2]
    )


def _day(time: np.datetime64) -> str:
    return f"{pd.Timestamp(time):%-d %b %Y}"


def codec_for(dataset: Dataset, model: LanguageModel, **options: Any) -> Codec:
    """Give the text formats for a log, counted in the model's tokens."""
    return Codec(
        dataset.catalog.categories,
        person=dataset.person,
        noun=dataset.noun,
        count_tokens=model.count_tokens,
        **options,
    )
