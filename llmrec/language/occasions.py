"""What a period of the calendar is known for, and what a language model associates with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from llmrec.contracts import FloatArray
from llmrec.data.calendar import Period
from llmrec.data.files import write_text
from llmrec.errors import DataError, MissingExtraError
from llmrec.language.codec import make_labels
from llmrec.language.reading import centered
from llmrec.language.templates import template

if TYPE_CHECKING:
    from llmrec.language.model import LanguageModel

COUNTRY = "US"
SEASONS = ("winter", "spring", "summer", "autumn")


def occasions(period: Period) -> tuple[str, ...]:
    """Name what a period of the calendar is known for.

    These are the holidays whose eve lies in it, by date, since what a day needs is bought before
    it; the season of its middle if there is none.

    Raises
    ------
    MissingExtraError
        If the holidays of the calendar are not installed.
    """
    try:
        from holidays import country_holidays
    except ImportError as error:
        raise MissingExtraError("occasions need: pip install 'llmrec[seasons]'") from error
    start, end = (pd.Timestamp(time) for time in (period.start, period.end))
    first, last = (time.date() + timedelta(days=1) for time in (start, end))
    calendar = country_holidays(
        COUNTRY,
        years=range(first.year, last.year + 1),
        observed=False,
        categories=("public", "unofficial"),
    )
    days = [day for day in sorted(calendar) if first <= day < last]
    middle = start + (end - start) / 2
    season = SEASONS[middle.month % 12 // 3]
    return tuple(name for day in days for name in calendar.get_list(day)) or (season,)


class OccasionReader:
    """How much likelier a language model names each category once it has read an occasion's name.

    Parameters
    ----------
    model
        Asked once for each prompt.
    categories, noun
        (n_categories,) names in the catalog's order, and what items are called: "groceries".
    template
        Name of a file in ``prompts/`` without its ending.
    kept
        JSON file that keeps what the model said, by its fingerprint and the labels.

    Raises
    ------
    DataError
        If the file is there and is none that this class wrote.
    """

    def __init__(
        self,
        model: LanguageModel,
        categories: Sequence[str],
        noun: str,
        *,
        template: str = "season-v1",
        kept: Path | None = None,
    ) -> None:
        self.model, self.noun, self.template = model, noun, template
        self._names = [f" {label.lower()}" for label in make_labels(categories)]
        self._kept = kept
        digest = hashlib.sha256("".join(self._names).encode()).hexdigest()[:8]
        self._key = f"{model.fingerprint} {digest}"
        self._known = {} if kept is None else _stored(kept).get(self._key, {})

    def scores(self, spans: Sequence[Period]) -> FloatArray:
        """(n_spans, n_categories) nats that a period's occasions add, on average, rows centred."""
        plain = self._logprobs("")
        read = [
            np.mean([self._logprobs(name) for name in occasions(span)], axis=0) for span in spans
        ]
        return centered(np.stack(read) - plain)

    def _logprobs(self, occasion: str) -> FloatArray:
        prompt = template(self.template).render(noun=self.noun, occasion=occasion)
        if prompt not in self._known:
            found = self.model.continuation_logprobs(prompt, self._names)
            self._known[prompt] = np.round(found, 5).tolist()
            if self._kept is not None:
                content = _stored(self._kept) | {self._key: self._known}
                write_text(self._kept, json.dumps(content, ensure_ascii=False))
        return np.array(self._known[prompt])


def _stored(path: Path) -> dict[str, dict[str, list[float]]]:
    if not path.exists():
        return {}
    try:
        content: dict[str, dict[str, list[float]]] = json.loads(path.read_text(encoding="utf-8"))
        return {key: dict(prompts) for key, prompts in content.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{path} holds no readings of occasions: {error}. Delete it to read them again."
        ) from error
