"""Descriptions in the words of a completion server, and what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from llmrec.data.dataset import Dataset
from llmrec.data.periods import History
from llmrec.explain.describe import complete_descriptions
from llmrec.forecast import Forecast
from llmrec.language.codec import Codec
from llmrec.language.completion import Completion

WRITTEN, REFUSED, NOTHING = "by the server", "refused by the checks", "with nothing to say"


class Completer(Protocol):
    """Continues prompts, such as a `CompletionServer`."""

    def complete(self, prompts: Sequence[str], grammars: Sequence[str]) -> Sequence[Completion]:
        """Give the line after each prompt, under its grammar if it can keep to one."""
        ...


def as_completer(writer: Completer | str | None) -> Completer | None:
    """Give the server of a URL; anything else as it is. DataError if it is no URL of a server."""
    if not isinstance(writer, str):
        return writer
    from llmrec.language.completion_server import CompletionServer

    return CompletionServer(writer)


class DescriptionWriter:
    """Describes forecasts in a server's words where these pass the checks, else by rule.

    The server's prompts are those of a model that was not fine-tuned, in plain text, and show what
    could be said: a server without the grammar does not know the words.

    Parameters
    ----------
    completer
        The server.
    dataset
        Whose categories and words the prompts have.

    Attributes
    ----------
    counts
        What became of the descriptions until now: "by the server", "refused by the checks",
        "timed out", "HTTP 500".
    """

    def __init__(self, completer: Completer, dataset: Dataset) -> None:
        self.completer, categories = completer, dataset.catalog.categories
        self.codec = Codec(categories, person=dataset.person, noun=dataset.noun)
        self.counts: Counter[str] = Counter()

    def describe(
        self, histories: Sequence[History], forecasts: Sequence[Forecast]
    ) -> list[Forecast]:
        """Give the forecasts with checked descriptions; ``source.why`` tells who worded each."""
        found = []
        described = complete_descriptions(
            self.completer.complete, self.codec, histories, forecasts, show_claims=True
        )
        for one, written in described:
            if written is None:
                outcome = NOTHING
            else:
                outcome = written.failure or (WRITTEN if one.source.proposed else REFUSED)
            self.counts[outcome] += 1
            found.append(one if written is None else _with_outcome(one, outcome))
        return found

    def summary(self) -> str:
        """Give a line on all descriptions: "12 descriptions: 9 by the server, 3 timed out"."""
        n = self.counts.total()
        parts = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.most_common())
        return f"{n} {'description' if n == 1 else 'descriptions'}: {parts}"


def _with_outcome(forecast: Forecast, outcome: str) -> Forecast:
    words = "in the server's words" if outcome == WRITTEN else f"worded by rule, server: {outcome}"
    why = "; ".join(filter(None, (forecast.source.why, words)))
    return replace(forecast, source=replace(forecast.source, why=why))
