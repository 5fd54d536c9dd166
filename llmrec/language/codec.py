"""From a history to a prompt: versioned templates of ``prompts/``, rendered in a sandbox."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.names import clean_text, collapse_repeats
from llmrec.data.periods import split_into_ticks
from llmrec.language.forecast_line import LineFormat, round_percents
from llmrec.language.tokenization import Prompt, pooled_position
from llmrec.types import FloatArray, IntArray

if TYPE_CHECKING:
    from jinja2 import Template

    from llmrec.data.periods import History
    from llmrec.language.model import LanguageModel


def prompts_folder() -> Path:
    """Give the folder of the templates: in the installed package, or beside it in a checkout."""
    installed = Path(str(resources.files("llmrec"))) / "prompts"
    return installed if installed.is_dir() else installed.parent.parent / "prompts"


@cache
def load_template(name: str) -> Template:
    """Load a template by its file's name without the ending; unknown variables are errors."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # The output is a plain-text prompt, never HTML, so there is nothing to escape it for.
    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(prompts_folder()), undefined=StrictUndefined, autoescape=False
    )
    return environment.get_template(f"{name}.jinja")


TITLE_LENGTH = 40
UNTITLED = "untitled"
_CODE_SIGNS = re.compile(r"[{}\[\]|\\^~`>]|<(?!=)")  # of templates, markup and special tokens
MAX_ITEMS_PER_TICK = 40  # items of a tick that a prompt shows, the newest
PERIOD_TEMPLATE = "forecast-v1"  # periods as text; in later versions each tick is one position
MAX_SHARES_SHOWN = 8  # categories whose shares so far are shown where a line is to follow


@dataclass(frozen=True)
class _PromptPeriod:
    """One period of a prompt while it is being fitted to the budget."""

    start: np.datetime64
    end: np.datetime64
    counts: FloatArray
    titles: tuple[str, ...]

    def merge(self, later: _PromptPeriod) -> _PromptPeriod:
        counts = self.counts + later.counts
        return _PromptPeriod(self.start, later.end, counts, later.titles or self.titles)


@lru_cache(maxsize=65_536)  # the same titles stand in prompt after prompt
def shorten_title(title: str) -> str:
    """Give a title as prompts show it: short, without signs of code, or a piece that fills it.

    One without a letter or digit says nothing, and a model would read into it what it likes.
    """
    text = clean_text(collapse_repeats(_CODE_SIGNS.sub(" ", title)), TITLE_LENGTH)
    return text if any(map(str.isalnum, text)) else UNTITLED


class Codec:
    """Histories to prompts; forecasts to lines and back through `line`.

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
        characters a token); the oldest periods are merged until it does. Shares that are shown
        where a line is to follow come on top.

    Attributes
    ----------
    merge_step
        Ticks beyond the budget are merged so many at once; 1: no more than need be. With more, a
        prompt keeps its beginning until so many ticks have come, and may be read on (`PrefixCache`)
        in between; it then shows fewer ticks than those that an adapter was calibrated on.
    line
        The format of forecast lines.
    labels
        (n_categories,) names of the categories in prompts and lines.
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
        self.line = LineFormat(categories, top=top)
        self.labels = self.line.labels
        self.person, self.noun, self.template = person, noun, template
        self.budget, self._count_tokens = budget, count_tokens
        self.merge_step = 1

    def prompt(self, history: History) -> Prompt:
        """Render a history as text that ends at the read position."""
        if self.template == PERIOD_TEMPLATE:
            text = self._render_periods(history)
        else:
            text = self._render(history, ticks=self._render_ticks(history), asked=False)
        return Prompt(text, history.user_id, is_trial=history.n_left_out > 0)

    def completion_prompt(self, history: History) -> str:
        """Render a history as text that a forecast line is to follow."""
        if self.template == PERIOD_TEMPLATE:
            return self._render_periods(history)
        rendered = self._render_ticks(history)
        return self._render(history, ticks=rendered, asked=True, **self._shares_so_far(history))

    def title(self, catalog: Catalog, item: int) -> str:
        """Give an item's title as prompts show it."""
        return shorten_title(catalog.titles[item])

    def _render_periods(self, history: History) -> str:
        periods = _prompt_periods(history)
        costs = [self._count_period_tokens(history, period) for period in periods]
        available = self.budget - self._count_tokens(self._render(history, periods=[]))
        while len(periods) > 1 and sum(costs) > available:
            periods = [periods[0].merge(periods[1]), *periods[2:]]
            costs = [self._count_period_tokens(history, periods[0]), *costs[2:]]
        return self._render(history, periods=[self._variables(history, p) for p in periods])

    def _render_ticks(self, history: History) -> list[str]:
        """Render each tick as a pooled position, oldest first.

        Those beyond the budget become one position that holds the shares of their categories.
        """
        starts, offsets = split_into_ticks(history)
        available = self.budget - self._count_tokens(
            self._render(history, ticks=[], shares=[], gone=[], asked=True)
        )
        n_merged = max(0, len(starts) - max(2, available))
        if n_merged:  # the merged ticks take a position too
            n_steps = -(-(n_merged + 1) // self.merge_step)
            n_merged = min(n_steps * self.merge_step, len(starts) - 1)
        rendered = [
            self._render_tick(history, history.log.item_idx[first:stop])
            for first, stop in pairwise(offsets[n_merged:])
        ]
        if n_merged:
            items = history.log.item_idx[offsets[0] : offsets[n_merged]]
            counts = np.asarray(history.catalog.category_shares[items].sum(axis=0)).ravel()
            parts = [f" before {_format_day(starts[n_merged])}", f" {self._render_counts(counts)}"]
            rendered.insert(0, pooled_position(parts))
        return rendered

    def _shares_so_far(self, history: History) -> dict[str, list[str]]:
        """Give the template's ``shares`` and ``gone``, both of the periods that hold events.

        These are the heaviest categories' shares in the earlier and the recent half of them, and
        the categories that the last two do not hold. Both are empty for less than two periods.
        """
        counts = history.category_counts
        counts = counts[counts.sum(axis=1) > 0]
        if len(counts) < 2:
            return {"shares": [], "gone": []}
        halves = [half.sum(axis=0) for half in np.split(counts, [len(counts) // 2])]
        percents = np.array([round_percents(half) for half in halves])
        totals = counts.sum(axis=0)
        heaviest = np.argsort(-totals, kind="stable")
        shown = [c for c in heaviest[:MAX_SHARES_SHOWN] if totals[c]]
        absent = [c for c in heaviest if totals[c] and history.recently_absent[c]]
        return {
            "shares": [f"{self.labels[c]} {' '.join(f'{p[c]}%' for p in percents)}" for c in shown],
            "gone": [self.labels[c] for c in absent[: MAX_SHARES_SHOWN // 2]],
        }

    def _render_tick(self, history: History, items: IntArray) -> str:
        newest = items[-MAX_ITEMS_PER_TICK:]
        parts = [part for item in newest for part in self._item_parts(history, item)]
        return pooled_position(parts or [" nothing"])

    def _item_parts(self, history: History, item: int) -> list[str]:
        """Give an item's title and labels, each a part of a pooled position."""
        shares = history.catalog.category_shares
        categories = shares.indices[shares.indptr[item] : shares.indptr[item + 1]]
        title = self.title(history.catalog, item)
        return [f" {text}" for text in (title, *(self.labels[c] for c in categories))]

    def _render_counts(self, counts: FloatArray) -> str:
        return self.line.render_shares(counts / counts.sum()) if counts.any() else "nothing"

    def _variables(
        self, history: History, period: _PromptPeriod
    ) -> dict[str, str | tuple[str, ...]]:
        """Give the template's variables of one period."""
        when = f"To {_format_day(period.end)}"
        if history.period_length.unit != "events":
            when = f"{_format_day(period.start)} t{when[1:]}"
        return {"when": when, "titles": period.titles, "mix": self._render_counts(period.counts)}

    def _count_period_tokens(self, history: History, period: _PromptPeriod) -> int:
        """Count the tokens of a period, with two to spare for how it joins its neighbours."""
        values = self._variables(history, period)
        titles = "; ".join(values["titles"])
        return self._count_tokens(f"{values['when']}, such as {titles}: {values['mix']}.") + 2

    def _render(self, history: History, **variables: Any) -> str:
        following = f"Next {history.period_length.n} {self.noun}"
        if history.period_length.unit != "events":
            following = f"Next {history.period_length}, from {_format_day(history.cutoff)}"
        domain = {"person": self.person, "noun": self.noun, "next": following}
        return load_template(self.template).render(**domain, **variables)


def _prompt_periods(history: History) -> list[_PromptPeriod]:
    """Give the periods from the first with events on, oldest first; at least one."""
    first, counts = int(np.argmax(np.diff(history.offsets) > 0)), history.category_counts
    return [
        _PromptPeriod(period.start, period.end, counts[p], _titles(history, p))
        for p, period in enumerate(history.periods)
        if p >= first
    ]


def _titles(history: History, period: int) -> tuple[str, ...]:
    """Give up to two titles of a period's newest items."""
    items = history.log.item_idx[history.offsets[period] : history.offsets[period + 1]]
    newest = dict.fromkeys(items[::-1].tolist())
    return tuple(shorten_title(history.catalog.titles[item]) for item in list(newest)[:2])


def _format_day(time: np.datetime64) -> str:
    return f"{pd.Timestamp(time):%-d %b %Y}"


def codec_for(dataset: Dataset, model: LanguageModel, **options: Any) -> Codec:
    """Make the codec of a data set, with prompts counted in the model's tokens."""
    return Codec(
        dataset.catalog.categories,
        person=dataset.person,
        noun=dataset.noun,
        count_tokens=model.count_tokens,
        **options,
    )
