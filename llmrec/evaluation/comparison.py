"""The comparison behind ``llmrec evaluate``: fit on the past, evaluate everybody on the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.periods import Window
from llmrec.data.splits import sample_windows, split_windows, training_windows
from llmrec.evaluation.evaluator import EvaluationResult, evaluate_forecasters, summarize
from llmrec.forecast import Forecaster
from llmrec.forecasters.calibration import (
    DEFAULT_DISPERSION,
    Calibration,
    Dispersion,
    fit_calibration,
    softmax_update,
)
from llmrec.forecasters.precomputed import (
    PrecomputedForecaster,
    out_of_sample_weights,
    predict_weights,
)
from llmrec.forecasters.registry import SEED_DEPENDENT, ForecasterRegistry
from llmrec.language.codec import codec_for
from llmrec.types import FloatArray

if TYPE_CHECKING:
    from llmrec.language.model import LanguageModel


REFERENCE, PERSISTENCE = "DecayedDirichlet", "Mean"
PRIORS = (REFERENCE, "GatedMixture")  # that a reading is added to, where they take part


@dataclass(frozen=True, eq=False)
class Comparison:
    """Forecasters judged on the test splits of a log.

    Attributes
    ----------
    dataset
        The log.
    windows, results
        Split to its windows, and to what was found there.
    forecasters
        Split to the forecasters by name, those of several seeds one after the other.
    table
        Tidy means and intervals of all splits, see `summarize`.
    calibrations
        What the language model's readings were trusted with, by the prior they were added to.
    """

    dataset: Dataset
    windows: dict[str, list[Window]]
    results: dict[str, EvaluationResult]
    forecasters: dict[str, dict[str, list[Forecaster]]]
    table: pd.DataFrame
    calibrations: dict[str, Calibration]

    @property
    def scores(self) -> pd.DataFrame:
        """One row a split, model and user."""
        return pd.concat([found.scores for found in self.results.values()], ignore_index=True)


def compare(
    dataset: Dataset,
    names: Iterable[str],
    *,
    seeds: Sequence[int] = (0,),
    readings: LLMScores | None = None,
) -> Comparison:
    """Fit forecasters on all that precedes the tests, and judge them there.

    Counting and the mean are always among them: gains are on the one, skill is against the other.

    Parameters
    ----------
    names
        Names of `llmrec.forecasters.registry.BUILDERS`.
    seeds
        Those that depend on a seed are fitted once for each; scores are the means.
    readings
        What a language model read, if one takes part; it is judged on the users it was read for.
    """
    found = split_windows(dataset)
    validation = found.pop("validation")
    family = ForecasterRegistry(training_windows(dataset), validation, seeds[0])
    fitted = _fitted(family, dict.fromkeys((PERSISTENCE, REFERENCE, *names)), seeds)
    judgements = {
        split: evaluate_forecasters(fitted, windows, dataset=dataset.name, split=split)
        for split, windows in found.items()
    }
    asked = {split: dict(fitted) for split in found}
    calibrations: dict[str, Calibration] = {}
    if readings is not None:
        spoken, calibrations = readings.to_forecasters(fitted, seeds[0])
        for split, believed in spoken.items():
            more = evaluate_forecasters(
                believed, readings.windows[split], dataset=dataset.name, split=split
            )
            judgements[split] = judgements[split].merge(more)
            asked[split] |= believed
    table = pd.concat(
        [summary_table(judgement) for judgement in judgements.values()], ignore_index=True
    )
    return Comparison(dataset, found, judgements, asked, table, calibrations)


def summary_table(judgement: EvaluationResult) -> pd.DataFrame:
    """Summarise against counting (gains) and against the mean (skill)."""
    return summarize(judgement, reference=REFERENCE, persistence=PERSISTENCE)


def _fitted(
    family: ForecasterRegistry, names: Iterable[str], seeds: Sequence[int]
) -> dict[str, list[Forecaster]]:
    """Fit by name, showing how far it is on a terminal."""
    from tqdm import tqdm

    families, found = [family], {}
    bar = tqdm(list(names), desc="fitting", disable=not sys.stderr.isatty())
    for name in bar:
        bar.set_postfix_str(name)
        if name in SEED_DEPENDENT:
            families += [family.with_seed(seed) for seed in seeds[len(families) :]]
            found[name] = [one[name] for one in families]
        else:
            found[name] = [family[name]]
    return found


@dataclass(frozen=True, eq=False)
class LLMScores:
    """What a language model read of windows drawn from each split.

    ``scores`` are (n_windows, n_categories) centred scores, by split like the ``windows``; none
    until `read`.
    """

    windows: dict[str, list[Window]]
    scores: dict[str, FloatArray]

    @classmethod
    def sample(cls, dataset: Dataset, n: int | None = None, seed: int = 0) -> LLMScores:
        """Draw n windows of each split (all if None)."""
        windows = {
            split: sample_windows(found, n, seed) for split, found in split_windows(dataset).items()
        }
        return cls(windows, {})

    def score(self, model: LanguageModel, dataset: Dataset) -> LLMScores:
        """Let a model read them all."""
        from llmrec.forecasters.counting import DecayedDirichlet
        from llmrec.forecasters.llm import LLMForecaster

        reader = LLMForecaster(model, codec_for(dataset, model), DecayedDirichlet())
        scores = {
            split: reader.category_scores([window.history for window in found])
            for split, found in self.windows.items()
        }
        return LLMScores(self.windows, scores)

    def to_forecasters(
        self, fitted: Mapping[str, Sequence[Forecaster]], seed: int = 0
    ) -> tuple[dict[str, dict[str, list[Forecaster]]], dict[str, Calibration]]:
        """Turn the readings into forecasters.

        Returns
        -------
        forecasters, calibrations
            By test split: the reading believed alone, in full beside counting, and as far as
            validation says beside each of `PRIORS` that is ``fitted``; and by prior what that is.
        """
        targets = target_counts(self.windows["validation"])
        calibrations = {}
        for name in (name for name in PRIORS if name in fitted):
            prior = out_of_sample_weights(fitted[name][0], self.windows["validation"])
            calibrations[name] = fit_calibration(
                prior, self.scores["validation"], targets, seed=seed
            )
        tests = [split for split in self.windows if split != "validation"]
        return {split: self._on(split, fitted, calibrations) for split in tests}, calibrations

    def _on(
        self,
        split: str,
        fitted: Mapping[str, Sequence[Forecaster]],
        calibrations: Mapping[str, Calibration],
    ) -> dict[str, list[Forecaster]]:
        histories = [window.history for window in self.windows[split]]
        priors = {name: predict_weights(fitted[name][0], histories) for name in calibrations}
        z, counted = self.scores[split], priors[REFERENCE]
        full = softmax_update(counted, z - calibrations[REFERENCE].center, 1.0, 0.0)
        alone = softmax_update(np.ones_like(counted), z, 1.0, 0.0)
        found = {
            "LLM alone (zero-shot)": (REFERENCE, alone),
            "LLM x counting (a = 1)": (REFERENCE, full),
        }
        for name, calibration in calibrations.items():
            found[f"LLM on {name}"] = (name, calibration.apply(priors[name], z))
        return {
            name: [PrecomputedForecaster.of(name, histories, weights, _spread(fitted[beside][0]))]
            for name, (beside, weights) in found.items()
        }


def _spread(forecaster: Any) -> Dispersion:
    spread: Dispersion = getattr(forecaster, "spread", DEFAULT_DISPERSION)
    return spread
