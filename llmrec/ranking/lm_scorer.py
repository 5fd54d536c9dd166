"""Text as item scorers: titles that the language model expects, and similarity of titles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.special import log_softmax

from llmrec.data.catalog import Catalog
from llmrec.data.periods import History
from llmrec.errors import DataError
from llmrec.language.codec import Codec
from llmrec.language.encoder import TextEncoder
from llmrec.language.model import LanguageModel
from llmrec.ranking.item_item import recency_weighted
from llmrec.ranking.scorers import require_positive
from llmrec.types import FloatArray, IntArray


class LMItemScorer:
    """Scores items by the probability that a fine-tuned model gives their titles.

    p_i = (1 - floor) * p(title of i) / items of that title, scaled to sum to 1 - floor over the
    catalog, + floor / n_items. Items of which the model knows no title get the floor; a person
    without an event, for whom there is nothing to read, gets equal scores.

    Parameters
    ----------
    model, codec
        A model with a memory of titles, and the prompts it reads.
    floor
        In (0, 1), so that no item is impossible.

    Raises
    ------
    DataError
        If the model has no memory of titles.
    """

    name = "titles that the language model expects"

    def __init__(self, model: LanguageModel, codec: Codec, floor: float = 0.01) -> None:
        if model.title_embeddings is None:
            raise DataError(f"{model.name} has no memory of titles: fine-tune it with titles.rank")
        if not 0 < floor < 1:
            raise ValueError(f"floor must lie in (0, 1), not {floor}")
        self.model, self.codec, self.memory, self.floor = (
            model,
            codec,
            model.title_embeddings,
            floor,
        )
        self._of: tuple[Catalog, IntArray, IntArray] | None = None

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item."""
        if not histories:
            return np.empty((0, 0))
        titles, among = self._titles(histories[0].catalog)
        n_items = len(titles)
        found = np.full((len(histories), n_items), 1 / n_items)
        known = [row for row, history in enumerate(histories) if history.n_events]
        if known and (titles >= 0).any():
            foretold = self.model.title_probabilities(
                [self.codec.prompt(histories[row]) for row in known]
            )
            # In rows: a sum along strided rows would round differently with the batch size.
            each = np.ascontiguousarray(np.where(titles >= 0, foretold[:, titles] / among, 0.0))
            each /= each.sum(axis=1, keepdims=True)
            found[known] = (1 - self.floor) * each + self.floor / n_items
        return np.asarray(np.log(found))

    def _titles(self, catalog: Catalog) -> tuple[IntArray, IntArray]:
        """(n_items,) each item's title in the memory, or -1, and how many items share it."""
        if self._of is None or self._of[0] is not catalog:
            texts = [f" {self.codec.title(catalog, item)}" for item in range(catalog.n_items)]
            rows = np.array([self.memory.row_of(tuple(part)) for part in self.model.encode(texts)])
            counts = np.bincount(rows[rows >= 0], minlength=len(self.memory.keys))
            self._of = catalog, rows, np.where(rows >= 0, counts[rows], 1)
        return self._of[1:]


@dataclass
class TextSimilarity:
    """Scores items by how near their text is to the texts of a person's items.

    p = softmax(cosine(v_i, sum_j w_j v_j) / temperature), v the vectors of the items' titles and
    categories, w the fading history. Items that nobody has taken yet are scored like any other; a
    person without an event gets equal scores.

    Parameters
    ----------
    encoder
        Turns texts into vectors.
    half_life, per
        Events, or days, after which an item counts half; infinite: never.
    temperature
        > 0; the smaller, the more the nearest items stand out.
    """

    encoder: TextEncoder
    half_life: float = 10.0
    per: Literal["events", "days"] = "events"
    temperature: float = 0.05
    name: str = field(default="reads like what was taken", init=False)
    _of: tuple[Catalog, FloatArray] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_positive(temperature=self.temperature)
        if not self.half_life > 0:
            raise ValueError(f"half_life must be > 0, not {self.half_life}")

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item."""
        if not histories:
            return np.empty((0, 0))
        vectors = self._vectors(histories[0].catalog)
        persons = recency_weighted(histories, self.half_life, self.per) @ vectors
        norms = np.linalg.norm(persons, axis=1, keepdims=True)
        persons = persons / np.maximum(norms, 1e-12)
        # One product a person: a batched product would round differently with the batch size.
        likeness = np.stack([vectors @ person for person in persons])
        return np.asarray(log_softmax(likeness / self.temperature, axis=1))

    def _vectors(self, catalog: Catalog) -> FloatArray:
        """(n_items, d) of the catalog, embedded once."""
        if self._of is None or self._of[0] is not catalog:
            texts = [item_text(catalog, item) for item in range(catalog.n_items)]
            self._of = catalog, self.encoder.embed(texts)
        return self._of[1]


def item_text(catalog: Catalog, item: int) -> str:
    """Write what is known of an item: its title, and its categories in brackets."""
    names = ", ".join(catalog.categories_of(item))
    return f"{catalog.titles[item]} ({names})" if names else catalog.titles[item]
