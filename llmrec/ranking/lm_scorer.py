"""Item scorers from text: expected titles of a language model, and similarity of texts."""

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
from llmrec.ranking.contributions import Contributions, past_items
from llmrec.ranking.history_matrix import recency_weighted
from llmrec.ranking.scorers import require_positive
from llmrec.types import FloatArray, IntArray


class LMItemScorer:
    """Scores items by the probability that a fine-tuned model gives their titles.

    p_i = (1 - floor) * p(title of i) / items of that title, scaled to sum to 1 - floor over the
    catalog, + floor / n_items. Items without a title embedding get the floor; a person without an
    event gets equal scores.

    Parameters
    ----------
    model, codec
        A model with title embeddings, and the format of its prompts.
    floor
        In (0, 1), so that no item is impossible.

    Raises
    ------
    DataError
        If the model has no title embeddings.
    """

    name = "titles that the language model expects"

    def __init__(self, model: LanguageModel, codec: Codec, floor: float = 0.01) -> None:
        if model.title_embeddings is None:
            raise DataError(f"{model.name} has no title embeddings: fine-tune it with titles.rank")
        if not 0 < floor < 1:
            raise ValueError(f"floor must lie in (0, 1), not {floor}")
        self.model, self.codec, self.floor = model, codec, floor
        self._cached: tuple[Catalog, IntArray, IntArray] | None = None

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item."""
        if not histories:
            return np.empty((0, 0))
        titles, n_sharing = self._titles(histories[0].catalog)
        n_items = len(titles)
        found = np.full((len(histories), n_items), 1 / n_items)
        known = [row for row, history in enumerate(histories) if history.n_events]
        if known and (titles >= 0).any():
            prompts = [self.codec.prompt(histories[row]) for row in known]
            expected = self.model.title_probabilities(prompts)[:, titles] / n_sharing
            # In rows: a sum along strided rows would round differently with the batch size.
            shares = np.ascontiguousarray(np.where(titles >= 0, expected, 0.0))
            shares /= shares.sum(axis=1, keepdims=True)
            found[known] = (1 - self.floor) * shares + self.floor / n_items
        return np.asarray(np.log(found))

    def _titles(self, catalog: Catalog) -> tuple[IntArray, IntArray]:
        """(n_items,) row of each item's title, -1 without one, and how many items share it."""
        cached = self._cached  # another thread may score another catalog
        if cached is None or cached[0] is not catalog:
            titles = [self.codec.title(catalog, item) for item in range(catalog.n_items)]
            rows = self.model.title_rows(titles)
            # Shifted by one, items without a title are counted in front.
            counts = np.bincount(rows + 1, minlength=1)
            cached = catalog, rows, np.where(rows >= 0, counts[rows + 1], 1)
            self._cached = cached
        return cached[1:]


@dataclass
class TextSimilarity:
    """Scores items by the similarity of their text to the texts of a person's items.

    p = softmax(cosine(v_i, sum_j w_j v_j) / temperature), v the vectors of the items' titles and
    categories, w the weights of `recency_weighted`. Items that nobody has taken yet are scored like
    any other; a person without an event gets equal scores.

    Parameters
    ----------
    encoder
        Turns texts into vectors.
    half_life, per
        Events, or days, after which an item counts half; infinite: never.
    temperature
        > 0; the smaller, the more weight the most similar items get.
    """

    encoder: TextEncoder
    half_life: float = 10.0
    per: Literal["events", "days"] = "events"
    temperature: float = 0.05
    name: str = field(default="reads like what was taken", init=False)
    _cached: tuple[Catalog, FloatArray] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_positive(temperature=self.temperature)
        if not self.half_life > 0:
            raise ValueError(f"half_life must be > 0, not {self.half_life}")

    def scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) log-probability of each item."""
        if not histories:
            return np.empty((0, 0))
        return np.asarray(log_softmax(self.raw_scores(histories), axis=1))

    def raw_scores(self, histories: Sequence[History]) -> FloatArray:
        """(n_users, n_items) cosines over the temperature, for at least one history."""
        vectors = self._vectors(histories[0].catalog)
        users = recency_weighted(histories, self.half_life, self.per) @ vectors
        users = users / _norms(users)
        # One product a user: a batched product would round differently with the batch size.
        return np.stack([vectors @ user for user in users]) / self.temperature

    def contributions(self, history: History, items: IntArray) -> Contributions:
        """Give the parts of the raw scores of these items: products of the texts' vectors."""
        vectors, past = self._vectors(history.catalog), past_items(history)
        weights = recency_weighted([history], self.half_life, self.per)
        own = weights.toarray()[0, past][:, None] * vectors[past]
        scale = self.temperature * _norms(weights @ vectors)[0]
        return Contributions(past, vectors[items] @ own.T / scale, np.zeros(len(items)), "log")

    def _vectors(self, catalog: Catalog) -> FloatArray:
        """(n_items, d) vectors of a catalog's items, computed once."""
        cached = self._cached
        if cached is None or cached[0] is not catalog:
            texts = [item_text(catalog, item) for item in range(catalog.n_items)]
            self._cached = cached = catalog, self.encoder.embed(texts)
        return cached[1]


def _norms(vectors: FloatArray) -> FloatArray:
    """(n, 1) lengths of vectors, none of them 0."""
    return np.asarray(np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))


def item_text(catalog: Catalog, item: int) -> str:
    """Join an item's title and its categories in brackets."""
    names = ", ".join(catalog.categories_of(item))
    return f"{catalog.titles[item]} ({names})" if names else catalog.titles[item]
