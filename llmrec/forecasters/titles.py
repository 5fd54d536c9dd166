"""What a tuned language model foretells of titles, summed over categories: a forecast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import sparse

from llmrec.contracts import FloatArray, Forecast, Forecaster, Source
from llmrec.data.catalog import Catalog
from llmrec.data.fitted import Fitted
from llmrec.data.periods import History, Window, target_counts
from llmrec.errors import DataError
from llmrec.forecasters.mixing import fit_share, mixed, shares_of, weights_on
from llmrec.language.codec import Codec
from llmrec.language.model import LanguageModel
from llmrec.language.titles import TitleMemory


class ForetoldTitles:
    """Counting, and the categories of the titles that a language model expects next.

    q = (1 - share) * prior + share * sum_i p(title i) * category shares of i. A person without an
    event, and a catalog of which the model knows no title, get the prior alone.

    Parameters
    ----------
    model, codec
        A model with a memory of titles, and the prompts it reads.
    prior
        The forecaster mixed in.
    share
        How far the titles are trusted, see `fit`. How sure a forecast is, the prior says.

    Raises
    ------
    DataError
        If the model has no memory of titles.
    """

    def __init__(
        self,
        model: LanguageModel,
        codec: Codec,
        prior: Forecaster,
        share: float = 0.0,
    ) -> None:
        if model.memory is None:
            raise DataError(f"{model.name} has no memory of titles: fine-tune it with titles.rank")
        self.model, self.codec, self.prior = model, codec, prior
        self.memory: TitleMemory = model.memory
        self.share = share
        self.fitted: Fitted | None = None
        self._of: tuple[Catalog, FloatArray] | None = None

    def fit(self, windows: Sequence[Window]) -> ForetoldTitles:
        """Choose the share of least log-loss on validation windows; give itself back."""
        histories, targets = [window.history for window in windows], target_counts(windows)
        counted, learned = weights_on(self.prior, windows), self.learned(histories)
        self.share, _ = fit_share(counted, learned, targets)
        self.fitted = Fitted.on(windows).joined(getattr(self.prior, "fitted", None))
        return self

    def learned(self, histories: Sequence[History]) -> FloatArray:
        """(n_histories, n_categories) what the titles alone say; all 0 where they say nothing."""
        found = np.zeros((len(histories), len(self.codec.labels)))
        known = [row for row, history in enumerate(histories) if history.n_events]
        if known:
            prompts = [self.codec.prompt(histories[row]) for row in known]
            weights = self.model.foretell(prompts)
            found[known] = shares_of(weights @ self._categories(histories[known[0]].catalog))
        return found

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the period after each history's cutoff."""
        if not histories:
            return []
        counted = self.prior.forecast(histories)
        if not self.share:
            return list(counted)
        weights = np.stack([forecast.category_weights for forecast in counted])
        found = mixed(weights, self.learned(histories), self.share)
        why = f"titles trusted with {self.share:g}"
        source = Source(f"ForetoldTitles({self.model.name})", "llm", why)
        return [
            replace(forecast, category_weights=row, source=source) if history.n_events else forecast
            for history, forecast, row in zip(histories, counted, found, strict=True)
        ]

    def _categories(self, catalog: Catalog) -> FloatArray:
        """(n_titles, n_categories) mean category shares of the items that have a title."""
        if self._of is not None and self._of[0] is catalog:
            return self._of[1]
        texts = [f" {self.codec.title(catalog, item)}" for item in range(catalog.n_items)]
        rows = np.array([self.memory.row(tuple(part)) for part in self.model.encode(texts)])
        (items,) = np.nonzero(rows >= 0)
        ones = (np.ones(len(items)), (rows[items], items))
        of = sparse.coo_array(ones, shape=(len(self.memory.keys), catalog.n_items)).tocsr()
        self._of = catalog, shares_of(np.asarray((of @ catalog.shares).todense()))
        return self._of[1]
