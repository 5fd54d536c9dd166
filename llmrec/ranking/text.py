"""What reads like the things a person took: texts of items, and nothing that others did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.special import log_softmax

from llmrec.contracts import FloatArray
from llmrec.data.catalog import Catalog
from llmrec.data.periods import History
from llmrec.language.encoder import TextEncoder
from llmrec.ranking.item_item import fading
from llmrec.ranking.scorers import require_positive


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
        persons = fading(histories, self.half_life, self.per) @ vectors
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
