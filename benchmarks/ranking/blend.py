"""llmrec's lists: scorers blended by validation and tilted to a forecast, in several variants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.labels import (
    LLMREC,
    OBSERVED,
    TUNED_LLM,
    WITHOUT_TITLES,
    tilted,
    untilted,
)
from benchmarks.ranking.baselines import Baseline, Seasonal, Settings
from benchmarks.ranking.splits import (
    LEAVE_ONE_OUT,
    ItemLists,
    K,
    RankingSplit,
    RankingStage,
    next_period,
)
from llmrec.data.calendar import PeriodLength, to_datetime64
from llmrec.data.counts import target_counts
from llmrec.errors import DataError
from llmrec.forecast import Forecaster
from llmrec.forecasters.calibration import DEFAULT_DISPERSION
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.llm import LLMForecaster, TitleForecaster
from llmrec.forecasters.precomputed import PrecomputedForecaster, predict_weights
from llmrec.language.adapters import AdapterMetadata
from llmrec.language.codec import Codec, codec_for
from llmrec.language.model import LanguageModel
from llmrec.ranking.blend import Blend, PrecomputedScorer, fit_blend
from llmrec.ranking.fitting import fit_strength
from llmrec.ranking.item_item import ItemToItem
from llmrec.ranking.lm_scorer import LMItemScorer
from llmrec.ranking.ranking import rank
from llmrec.ranking.registry import SIMILARITY_FLOOR
from llmrec.ranking.scorers import PersonalRepeat, RecentPopularity
from llmrec.types import FloatArray

TOP_N = 50  # items a person among which the blend's weights are fitted
TITLES = "titles of the LLM"  # the scorer that one of the blends lacks


def blend_rankings(
    split: RankingSplit,
    baselines: Sequence[Baseline],
    settings: Mapping[str, Settings],
    adapter: Path | None,
) -> dict[str, dict[str, ItemLists]]:
    """Give lists of validation and tests, by variant.

    ``settings`` are those that validation chose for the baselines; all of these are blended. With
    an adapter there are two blends: with the scorer of its title probabilities, and without, where
    a tilt to its forecast is all that it adds.
    """
    tuned = None if adapter is None else _load_tuned(split, adapter)
    blended = [baseline for baseline in baselines if baseline.name in settings]
    scorers = {
        name: list(_scorers(split, split.stage(name), blended, settings, tuned))
        for name in ("validation", *split.tests)
    }
    forecasters = _forecasters(split, tuned)
    variants: dict[str, dict[str, ItemLists]] = {}
    for name, excluded in ((LLMREC, ""), (WITHOUT_TITLES, TITLES)):
        if excluded and tuned is None:
            continue
        blends = _blends(split, scorers, excluded)
        variants[untilted(name)] = _lists(split, blends, forecasters["counting"], 0.0)
        for kind, by_stage in forecasters.items():
            strength = fit_strength(
                by_stage["validation"],
                blends["validation"],
                split.validation.windows,
                repeat=split.repeat,
            )
            print(f"{tilted(name, kind)}: strength {strength:g}", flush=True)
            variants[tilted(name, kind)] = _lists(split, blends, by_stage, strength)
    return variants


def _blends(
    split: RankingSplit, scorers: Mapping[str, Sequence[PrecomputedScorer]], excluded: str
) -> dict[str, Blend]:
    """Give the blend of each stage: scorers fitted anew, weights of validation."""
    chosen = {
        stage: tuple(scorer for scorer in of_stage if scorer.name != excluded)
        for stage, of_stage in scorers.items()
    }
    windows = split.validation.windows
    fitted = fit_blend(chosen["validation"], windows, repeat=split.repeat, top_n=TOP_N)
    weights = zip(fitted.names, fitted.weights, strict=True)
    print(", ".join(f"{scorer} {weight:.3f}" for scorer, weight in weights if weight), flush=True)
    return {stage: Blend(of_stage, fitted.weights) for stage, of_stage in chosen.items()}


def _forecasters(
    split: RankingSplit, tuned: tuple[LanguageModel, Codec] | None
) -> dict[str, dict[str, PrecomputedForecaster]]:
    """Give the forecasts that lists are tilted to, by what they are of and by stage."""
    windows = split.validation.windows
    counting = DecayedDirichlet().fit(windows)
    mean = DecayedDirichlet(name="Mean").fit(windows, decays=(1.0,))
    fitted: dict[str, Forecaster] = {"persistence": mean, "counting": counting}
    if tuned is not None:
        fitted[TUNED_LLM] = _llm_forecaster(*tuned, counting, split.validation)
    stages = {name: split.stage(name) for name in ("validation", *split.tests)}
    forecasters = {
        kind: {
            name: _precompute(kind, stage, predict_weights(forecaster, stage.histories))
            for name, stage in stages.items()
        }
        for kind, forecaster in fitted.items()
    }
    forecasters[OBSERVED] = {
        name: _precompute(OBSERVED, stage, observed_weights(stage))
        for name, stage in stages.items()
    }
    return forecasters


def _precompute(name: str, stage: RankingStage, weights: FloatArray) -> PrecomputedForecaster:
    # Rankings use the weights alone, so that any dispersion does.
    return PrecomputedForecaster.of(name, stage.histories, weights, DEFAULT_DISPERSION)


def observed_weights(stage: RankingStage) -> FloatArray:
    """(n_windows, n_categories) weights of the targets: the most that tilting can bring."""
    counts = target_counts(stage.windows) + 1e-3
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _scorers(
    split: RankingSplit,
    stage: RankingStage,
    baselines: Sequence[Baseline],
    settings: Mapping[str, Settings],
    tuned: tuple[LanguageModel, Codec] | None,
) -> Iterator[PrecomputedScorer]:
    """Fit each scorer on a stage, and score all of its histories."""
    all_time = RecentPopularity(36_500.0)
    yield PrecomputedScorer.of(all_time, stage.histories, "all-time popularity")
    if split.repeat == "allow":
        for days in (21.0, 1000.0):
            name = f"taken before, half-life {days:g} days"
            yield PrecomputedScorer.of(PersonalRepeat(days, 30.0), stage.histories, name)
    for baseline in baselines:
        scorer: Any = baseline.build(settings[baseline.name], stage, split.dataset.catalog, 0)
        item_to_item = scorer.scorer if isinstance(scorer, Seasonal) else scorer
        if isinstance(item_to_item, ItemToItem):
            item_to_item.floor = SIMILARITY_FLOOR
        yield PrecomputedScorer.of(scorer, stage.histories, baseline.name)
    if tuned is not None:
        yield PrecomputedScorer.of(LMItemScorer(*tuned), stage.histories, TITLES)


def _lists(
    split: RankingSplit,
    blends: Mapping[str, Blend],
    forecasters: Mapping[str, PrecomputedForecaster],
    strength: float,
) -> dict[str, ItemLists]:
    lists = {}
    for name, blend in blends.items():
        histories = split.stage(name).histories
        forecasts = forecasters[name].forecast(histories)
        rankings = rank(forecasts, histories, blend, k=K, strength=strength, repeat=split.repeat)
        lists[name] = [ranking.item_idx.tolist() for ranking in rankings]
    return lists


def _load_tuned(split: RankingSplit, adapter: Path) -> tuple[LanguageModel, Codec]:
    metadata = AdapterMetadata.load(adapter)
    require_unseen_tests(split, metadata)
    model = LanguageModel.load(metadata.base_model, adapter=adapter)
    budget = int(metadata.config["budget"])
    return model, codec_for(split.dataset, model, template=metadata.prompt, budget=budget)


def require_unseen_tests(split: RankingSplit, metadata: AdapterMetadata) -> None:
    """Refuse an adapter that may have learned from the targets of a test.

    Calendar: its cutoff lies before the tests. Events: it learned from the log without validation
    and tests, or, to leave one out, from the one that lacks whole last periods.
    """
    if PeriodLength.parse(split.dataset.period).unit != "events":
        first = min(
            window.target.period.start for window in next(iter(split.tests.values())).windows
        )
        unseen = bool(to_datetime64(metadata.cutoff) <= first)
        logs = {split.dataset.log.fingerprint}
    else:
        splits = [split, next_period(split.dataset)] if split.name == LEAVE_ONE_OUT else [split]
        unseen, logs = True, {one.validation.log.fingerprint for one in splits}
    if not unseen or metadata.data_fingerprint not in logs:
        raise DataError(
            f"the adapter learned from {metadata.dataset} ({metadata.data_fingerprint}) up to "
            f"{metadata.cutoff}: for {split.name!r} it may have seen the targets of the tests"
        )


def _llm_forecaster(
    model: LanguageModel, codec: Codec, counting: DecayedDirichlet, validation: RankingStage
) -> LLMForecaster:
    titles = TitleForecaster(model, codec, counting).fit(validation.windows)
    forecaster = LLMForecaster(model, codec, titles if titles.share else counting)
    calibration = forecaster.fit(validation.windows)
    print(f"share of titles {titles.share:g}, category scores a = {calibration.a:.3f}", flush=True)
    return forecaster
