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
from llmrec.data.splits import draw, splits, training_windows
from llmrec.evaluation.evaluator import Judgement, judge, summarise
from llmrec.forecast import Forecaster
from llmrec.forecasters.calibration import (
    UNFITTED,
    Calibration,
    Spread,
    fit_calibration,
    softmax_update,
)
from llmrec.forecasters.precomputed import Replayed, weights_of, weights_on
from llmrec.forecasters.registry import SEEDED, Family
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
    windows, judgements
        Split to its windows, and to what was found there.
    forecasters
        Split to the forecasters by name, those of several seeds one after the other.
    table
        Tidy means and intervals of all splits, see `summarise`.
    calibrations
        What the language model's readings were trusted with, by the prior they were added to.
    """

    dataset: Dataset
    windows: dict[str, list[Window]]
    judgements: dict[str, Judgement]
    forecasters: dict[str, dict[str, list[Forecaster]]]
    table: pd.DataFrame
    calibrations: dict[str, Calibration]

    @property
    def scores(self) -> pd.DataFrame:
        """One row a split, model and user."""
        return pd.concat([found.scores for found in self.judgements.values()], ignore_index=True)


def compare(
    dataset: Dataset,
    names: Iterable[str],
    *,
    seeds: Sequence[int] = (0,),
    readings: Readings | None = None,
) -> Comparison:
    """Fit forecasters on all that precedes the tests, and judge them there.

    Counting and the mean are always among them: gains are on the one, skill is against the other.

    Parameters
    ----------
    names
        Names of `llmrec.forecasters.family.BUILDERS`.
    seeds
        Those that depend on a seed are fitted once for each; scores are the means.
    readings
        What a language model read, if one takes part; it is judged on the users it was read for.
    """
    found = splits(dataset)
    validation = found.pop("validation")
    family = Family(training_windows(dataset), validation, seeds[0])
    fitted = _fitted(family, dict.fromkeys((PERSISTENCE, REFERENCE, *names)), seeds)
    judgements = {
        split: judge(fitted, windows, dataset=dataset.name, split=split)
        for split, windows in found.items()
    }
    asked = {split: dict(fitted) for split in found}
    calibrations: dict[str, Calibration] = {}
    if readings is not None:
        spoken, calibrations = readings.believed(fitted, seeds[0])
        for split, believed in spoken.items():
            more = judge(believed, readings.windows[split], dataset=dataset.name, split=split)
            judgements[split] = judgements[split].with_more(more)
            asked[split] |= believed
    table = pd.concat([in_table(judgement) for judgement in judgements.values()], ignore_index=True)
    return Comparison(dataset, found, judgements, asked, table, calibrations)


def in_table(judgement: Judgement) -> pd.DataFrame:
    """Summarise against counting (gains) and against the mean (skill)."""
    return summarise(judgement, reference=REFERENCE, persistence=PERSISTENCE)


def _fitted(
    family: Family, names: Iterable[str], seeds: Sequence[int]
) -> dict[str, list[Forecaster]]:
    """Fit by name, showing how far it is on a terminal."""
    from tqdm import tqdm

    families, found = [family], {}
    bar = tqdm(list(names), desc="fitting", disable=not sys.stderr.isatty())
    for name in bar:
        bar.set_postfix_str(name)
        if name in SEEDED:
            families += [family.with_seed(seed) for seed in seeds[len(families) :]]
            found[name] = [one[name] for one in families]
        else:
            found[name] = [family[name]]
    return found


@dataclass(frozen=True, eq=False)
class Readings:
    """What a language model read of windows drawn from each split.

    ``scores`` are (n_windows, n_categories) centred scores, by split like the ``windows``; none
    until `read`.
    """

    windows: dict[str, list[Window]]
    scores: dict[str, FloatArray]

    @classmethod
    def drawn(cls, dataset: Dataset, n: int | None = None, seed: int = 0) -> Readings:
        """Draw n windows of each split (all if None)."""
        windows = {split: draw(found, n, seed) for split, found in splits(dataset).items()}
        return cls(windows, {})

    def read(self, model: LanguageModel, dataset: Dataset) -> Readings:
        """Let a model read them all."""
        from llmrec.forecasters.counting import DecayedDirichlet
        from llmrec.forecasters.llm import LLMForecaster

        reader = LLMForecaster(model, codec_for(dataset, model), DecayedDirichlet())
        scores = {
            split: reader.read([window.history for window in found])
            for split, found in self.windows.items()
        }
        return Readings(self.windows, scores)

    def believed(
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
            prior = weights_on(fitted[name][0], self.windows["validation"])
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
        priors = {name: weights_of(fitted[name][0], histories) for name in calibrations}
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
            name: [Replayed.of(name, histories, weights, _spread(fitted[beside][0]))]
            for name, (beside, weights) in found.items()
        }


def _spread(forecaster: Any) -> Spread:
    spread: Spread = getattr(forecaster, "spread", UNFITTED)
    return spread
