"""Comparison of forecasters on a log: fit on the past, evaluate on test splits, in one table."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.periods import Window
from llmrec.data.splits import EvaluationSplits, sample_windows
from llmrec.errors import DataError
from llmrec.evaluation.evaluator import EvaluationResult, evaluate_forecasters, summarize
from llmrec.forecast import Forecaster
from llmrec.forecasters.calibration import Calibration, fit_calibration, softmax_update
from llmrec.forecasters.dispersion import DEFAULT_DISPERSION, Spread
from llmrec.forecasters.precomputed import (
    PrecomputedForecaster,
    out_of_sample_weights,
    predict_weights,
)
from llmrec.forecasters.registry import SEED_DEPENDENT, ForecasterRegistry
from llmrec.language.codec import codec_for
from llmrec.types import FloatArray

if TYPE_CHECKING:
    from llmrec.evaluation.saved_engine import SavedEngine
    from llmrec.language.model import LanguageModel


REFERENCE, PERSISTENCE = "DecayedDirichlet", "Mean"
PRIORS = (REFERENCE, "GatedMixture")  # that category scores are added to, where they are fitted


@dataclass(frozen=True, eq=False)
class Comparison:
    """Forecasters evaluated on the test splits of a log.

    Attributes
    ----------
    dataset
        The log, with the catalog that it is compared on: see `EvaluationSplits`.
    windows, results
        Split to its windows, and to the result on them.
    forecasters
        Split to the forecasters by name, those of several seeds one after the other.
    table
        Tidy means and intervals of all splits, see `summarize`; of engines `score_engines`, and of
        later periods `horizon_table`, too.
    calibrations
        Calibrations of the language model's category scores, by the prior they are added to.
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
    llm_scores: LLMScores | None = None,
    saved_engine: SavedEngine | Sequence[SavedEngine] | None = None,
    horizons: Sequence[int] = (),
) -> Comparison:
    """Fit forecasters on all that precedes the test splits, and evaluate them there.

    Counting and the mean are always among them: gains are on the one, skill is against the other.

    Parameters
    ----------
    names
        Names of `llmrec.forecasters.registry.BUILDERS`.
    seeds
        Those that depend on a seed are fitted once for each; scores are the means.
    llm_scores
        Category scores of a language model, if it takes part; it is evaluated on their users.
    saved_engine
        Engines, if some take part; each is evaluated on its own windows, and by its lists and
        explanations, too: see `llmrec.evaluation.engine_scores`.
    horizons
        How many periods ahead the last test period is forecast for `horizon_table`.

    Raises
    ------
    DataError
        If two engines have one name.
    """
    engines = _several(saved_engine)
    splits = EvaluationSplits.of(dataset)
    dataset, windows = splits.dataset, splits.tests
    registry = ForecasterRegistry(splits.training, splits.windows["validation"], seeds[0])
    fitted = _fit(registry, dict.fromkeys((PERSISTENCE, REFERENCE, *names)), seeds)
    results = {
        split: evaluate_forecasters(fitted, judged, dataset=dataset.name, split=split)
        for split, judged in windows.items()
    }
    forecasters = {split: dict(fitted) for split in windows}
    calibrations: dict[str, Calibration] = {}
    sampled = []  # forecasters by split and name, and the windows that they are evaluated on
    if llm_scores is not None:
        of_llm, calibrations = llm_scores.to_forecasters(fitted, seeds[0])
        sampled.append((of_llm, llm_scores.windows))
    sampled += [(engine.forecasters, engine.windows) for engine in engines]
    for by_split, some in sampled:
        for split, found in by_split.items():
            result = evaluate_forecasters(found, some[split], dataset=dataset.name, split=split)
            results[split] = results[split].merge(result)
            forecasters[split] |= found
    tables = [summary_table(result) for result in results.values()]
    if engines:
        from llmrec.evaluation.engine_scores import score_engines

        tables.append(score_engines(engines, dataset.name))
    if horizons:
        from llmrec.evaluation.horizons import horizon_table

        tables.append(horizon_table(dataset, list(windows)[-1], horizons))
    table = pd.concat(tables, ignore_index=True)
    return Comparison(dataset, windows, results, forecasters, table, calibrations)


def _several(saved: SavedEngine | Sequence[SavedEngine] | None) -> list[SavedEngine]:
    """Give engines as a list; DataError if two have one name."""
    if saved is None:
        return []
    engines = list(saved) if isinstance(saved, Sequence) else [saved]
    names = [engine.name for engine in engines]
    if double := [name for name in names if names.count(name) > 1]:
        raise DataError(
            f"two engines are called {double[0]!r}: rename one, replace(engine, name=...)"
        )
    return engines


def summary_table(result: EvaluationResult) -> pd.DataFrame:
    """Summarise a result against counting (gains) and against the mean (skill)."""
    return summarize(result, reference=REFERENCE, persistence=PERSISTENCE)


@dataclass(frozen=True, eq=False)
class LLMScores:
    """A language model's category scores of windows sampled from each split.

    ``scores`` are (n_windows, n_categories) centred scores, by split like the ``windows``; none
    before `score`.
    """

    windows: dict[str, list[Window]]
    scores: dict[str, FloatArray]

    @classmethod
    def sample(cls, dataset: Dataset, n: int | None = None, seed: int = 0) -> LLMScores:
        """Sample n windows of each split (all if None)."""
        windows = {
            split: sample_windows(found, n, seed)
            for split, found in EvaluationSplits.of(dataset).windows.items()
        }
        return cls(windows, {})

    def score(self, model: LanguageModel, dataset: Dataset) -> LLMScores:
        """Score the windows of all splits by a model."""
        from llmrec.forecasters.counting import DecayedDirichlet
        from llmrec.forecasters.llm import LLMForecaster

        catalog = next(found[0] for found in self.windows.values() if found).history.catalog
        codec = codec_for(replace(dataset, catalog=catalog), model)
        forecaster = LLMForecaster(model, codec, DecayedDirichlet())
        scores = {
            split: forecaster.category_scores([window.history for window in found])
            for split, found in self.windows.items()
        }
        return LLMScores(self.windows, scores)

    def to_forecasters(
        self, fitted: Mapping[str, Sequence[Forecaster]], seed: int = 0
    ) -> tuple[dict[str, dict[str, list[Forecaster]]], dict[str, Calibration]]:
        """Make forecasters of the scores.

        Returns
        -------
        forecasters, calibrations
            By test split: the scores alone, added in full to counting, and calibrated on validation
            windows for each of `PRIORS` that is ``fitted``; and those calibrations, by prior.
        """
        targets = target_counts(self.windows["validation"])
        calibrations = {}
        for name in (name for name in PRIORS if name in fitted):
            prior = out_of_sample_weights(fitted[name][0], self.windows["validation"])
            calibrations[name] = fit_calibration(
                prior, self.scores["validation"], targets, seed=seed
            )
        tests = [split for split in self.windows if split != "validation"]
        return {
            split: self._forecasters_of(split, fitted, calibrations) for split in tests
        }, calibrations

    def _forecasters_of(
        self,
        split: str,
        fitted: Mapping[str, Sequence[Forecaster]],
        calibrations: Mapping[str, Calibration],
    ) -> dict[str, list[Forecaster]]:
        histories = [window.history for window in self.windows[split]]
        priors = {name: predict_weights(fitted[name][0], histories) for name in calibrations}
        z, counting = self.scores[split], priors[REFERENCE]
        full = softmax_update(counting, z - calibrations[REFERENCE].center, 1.0, 0.0)
        alone = softmax_update(np.ones_like(counting), z, 1.0, 0.0)
        found = {
            "LLM alone (zero-shot)": (REFERENCE, alone),
            "LLM x counting (a = 1)": (REFERENCE, full),
        }
        for name, calibration in calibrations.items():
            found[f"LLM on {name}"] = (name, calibration.apply(priors[name], z))
        return {
            name: [
                PrecomputedForecaster.of(name, histories, weights, _dispersion(fitted[prior][0]))
            ]
            for name, (prior, weights) in found.items()
        }


def _fit(
    registry: ForecasterRegistry, names: Iterable[str], seeds: Sequence[int]
) -> dict[str, list[Forecaster]]:
    """Fit forecasters by name, with a progress bar on a terminal."""
    registries, found = [registry], {}
    bar = tqdm(list(names), desc="fitting", disable=not sys.stderr.isatty())
    for name in bar:
        bar.set_postfix_str(name)
        if name in SEED_DEPENDENT:
            registries += [registry.with_seed(seed) for seed in seeds[len(registries) :]]
            found[name] = [one[name] for one in registries]
        else:
            found[name] = [registry[name]]
    return found


def _dispersion(forecaster: Any) -> Spread:
    found: Spread = getattr(forecaster, "spread", DEFAULT_DISPERSION)
    return found
