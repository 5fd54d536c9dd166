"""The comparison behind ``llmrec evaluate``: tune on validation, judge on every split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmrec.contracts import FloatArray, Forecast, Forecaster, Source
from llmrec.data.periods import History
from llmrec.data.readers import Dataset
from llmrec.evaluation.backtest import draw, evaluate, splits
from llmrec.forecasters.calibration import Calibration, softmax_update
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.spread import Spread, forecasts_of
from llmrec.language.codec import Codec

if TYPE_CHECKING:
    from llmrec.forecasters.llm import LLMForecaster
    from llmrec.language.model import LanguageModel


@dataclass(frozen=True, eq=False)
class Replayed:
    """Gives back (n, n_categories) weights computed before, for the very windows they were for."""

    weights: FloatArray
    spread: Spread
    name: str

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Give the stored forecasts, in order."""
        if len(histories) != len(self.weights):
            raise ValueError(f"{len(self.weights)} forecasts stored, {len(histories)} wanted")
        source = Source(self.name, "llm")
        return forecasts_of(source, histories, self.weights, self.spread)


def compare(
    dataset: Dataset, model: LanguageModel | None, n: int | None = None, seed: int = 0
) -> tuple[pd.DataFrame, Calibration | None]:
    """Judge counting, and the language model if there is one, on every split of a log.

    Counting is tuned on the whole validation split, the calibration on the n windows drawn from it;
    gains are paired with counting on the same users.

    Returns
    -------
    DataFrame, Calibration or None
        The tidy table of `evaluate`, and the calibration that was fitted.
    """
    windows = splits(dataset)
    counting = DecayedDirichlet().fit(windows["validation"])
    drawn = {split: draw(found, n, seed) for split, found in windows.items()}
    scores: dict[str, FloatArray] = {}
    llm: LLMForecaster | None = None
    if model is not None:
        from llmrec.forecasters.llm import LLMForecaster

        llm = LLMForecaster(model, codec_for(dataset, model), counting, seed=seed)
        scores = {split: llm.read([w.history for w in found]) for split, found in drawn.items()}
        llm.fit(drawn["validation"], scores=scores["validation"])
    tables = []
    for split, found in drawn.items():
        forecasters: dict[str, Forecaster] = {"DecayedDirichlet": counting}
        if llm is not None and llm.calibration is not None:
            prior = counting.category_weights([window.history for window in found])
            forecasters |= _readings(prior, scores[split], llm.calibration)
        tables.append(
            evaluate(
                forecasters, found, dataset=dataset.name, split=split, reference="DecayedDirichlet"
            )
        )
    table = pd.concat(tables, ignore_index=True)
    # Intervals were fitted for these two only; the raw readings have none of their own.
    fitted = table["model"].isin(["DecayedDirichlet", "LLM calibrated"])
    table = table[fitted | (table["metric"] != "coverage80")].reset_index(drop=True)
    return table, llm.calibration if llm else None


def codec_for(dataset: Dataset, model: LanguageModel, **options: Any) -> Codec:
    """Give the text formats for a log, counted in the model's tokens."""
    return Codec(
        dataset.catalog.categories,
        person=dataset.person,
        noun=dataset.noun,
        count_tokens=model.count_tokens,
        **options,
    )


def _readings(
    prior: FloatArray, scores: FloatArray, calibration: Calibration
) -> dict[str, Forecaster]:
    """One reading, believed alone, in full, not at all, and as far as validation says."""
    flat = np.full_like(prior, 1 / prior.shape[1])
    believed = {
        "LLM alone (zero-shot)": softmax_update(flat, scores, 1.0, 0.0),
        "LLM x counting (a = 1)": softmax_update(prior, scores - calibration.center, 1.0, 0.0),
        "LLM calibrated": calibration.apply(prior, scores),
    }
    return {name: Replayed(weights, calibration.spread, name) for name, weights in believed.items()}
