"""An engine's parts, fitted again on its log: numbers first, then what the language model adds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from llmrec.data.history_keys import history_key
from llmrec.data.periods import Window
from llmrec.data.splits import past_windows, sample_part
from llmrec.engine_config import EngineParts
from llmrec.engine_fit import FittedEngine, fit_engine, held_out_forecaster, suitable_effort
from llmrec.engine_language import (
    CalibratedLanguage,
    calibrate_language,
    draw_calibration_windows,
    find_trained_windows,
)
from llmrec.engine_resolve import describe_fit
from llmrec.engine_settings import Effort, EngineSettings
from llmrec.errors import DataError
from llmrec.fit_store import FitStore
from llmrec.forecasters.precomputed import HeldOutPredictions, predict_weights
from llmrec.forecasters.statement_probabilities import StatementProbabilities
from llmrec.ranking.fitting import fit_strength


@dataclass(frozen=True)
class FitPlan:
    """How an engine is fitted: the parameters of `InterestEngine.fit`."""

    effort: Effort
    seed: int
    leave_out: Callable[[Window], bool] | None
    use_llm: bool | None
    n_windows: int | None
    without: tuple[str, ...]
    work_folder: Path | str | None
    show: Callable[[str], None] | None


def refit_parts(parts: EngineParts, plan: FitPlan) -> EngineParts:
    """Give the same parts fitted on their log, see `InterestEngine.fit` for errors and warnings."""
    if not parts.has_whole_log:
        raise DataError("this engine holds no log to fit on: load it with data=")
    if plan.use_llm and parts.language is None:
        raise DataError("this engine has no language model: load it with one, or use_llm=False")
    plan = _with_model_planned(parts, plan)
    fitted = fit_engine(
        parts.dataset,
        plan.effort,
        seed=plan.seed,
        without=plan.without,
        store=FitStore(None if plan.work_folder is None else Path(plan.work_folder)),
        show=plan.show or (lambda line: None),
    )
    if fitted.report["reason"]:
        did = f"effort {fitted.effort!r} was fitted" if fitted.effort else "no member was chosen"
        warnings.warn(f"{did}: {fitted.report['reason']}", stacklevel=3)
    settings = describe_fit(parts.dataset, fitted, plan.seed)
    kept = ("model", "template", "budget", "adapter", "cutoff")
    settings = replace(settings, **{name: getattr(parts.settings, name) for name in kept})
    if plan.use_llm:
        return _with_language(parts, fitted, settings, plan)
    return replace(
        parts,
        settings=settings,
        prior=fitted.prior,
        blend=fitted.blend,
        statements=fitted.statements,
        new_items=fitted.new_items.blend if fitted.new_items else None,
        language=parts.language and parts.language.bare(),
        titles_weight=0.0,
    )


def _with_model_planned(parts: EngineParts, plan: FitPlan) -> FitPlan:
    """Say whether the model is used, and which windows it is not calibrated on.

    DataError says why it could not be calibrated, before anything is trained.
    """
    language, leave_out = parts.language, plan.leave_out
    if language is None or not (plan.use_llm or (plan.use_llm is None and plan.effort == "best")):
        return replace(plan, use_llm=False)
    folds = past_windows(parts.dataset)
    if plan.use_llm is None:
        if suitable_effort(plan.effort, folds)[0] != "best":
            return replace(plan, use_llm=False)
        leave_out = leave_out or find_trained_windows(language.about, parts.dataset)
    last = folds[0] if folds else []
    draw_calibration_windows(last, language, parts.dataset, plan.n_windows, plan.seed, leave_out)
    return replace(plan, use_llm=True, leave_out=leave_out)


def _with_language(
    parts: EngineParts, fitted: FittedEngine, settings: EngineSettings, plan: FitPlan
) -> EngineParts:
    """Calibrate the model on top of what was fitted, and give both."""
    assert parts.language is not None
    found = calibrate_language(
        parts.language, fitted, parts.dataset, plan.n_windows, plan.seed, plan.leave_out
    )
    assert fitted.held_out is not None
    prior = held_out_forecaster(fitted.held_out, found.windows)
    on_top = found.language.calibrated_forecaster(prior, found.titles)
    repeat = parts.dataset.repeat
    statements = _fit_statements(fitted, found, plan)
    settings = replace(
        settings,
        titles=found.titles,
        precision=found.language.model.precision,
        strength=fit_strength(on_top, found.validation_blend, found.windows, repeat=repeat),
        report={**settings.report, "llm": found.report, "statements": statements.report},
    )
    return replace(
        parts,
        settings=settings,
        prior=fitted.prior,
        blend=found.blend,
        statements=statements,
        new_items=fitted.new_items.blend if fitted.new_items else None,
        language=found.language,
        titles_weight=0.0,
    )


def _fit_statements(
    fitted: FittedEngine, found: CalibratedLanguage, plan: FitPlan
) -> StatementProbabilities:
    """Fit probabilities of statements on forecasts with the model's part, if it has one.

    The model reads the windows that it was calibrated on, and as large a part of other people's, of
    whom none is left out that it may have learned from.
    """
    assert fitted.statements is not None
    assert fitted.held_out is not None
    calibration = found.language.calibration
    if not (found.titles or (calibration is not None and calibration.a)):
        return fitted.statements
    usable = [one for one in fitted.everybody if not (plan.leave_out and plan.leave_out(one))]
    chosen_by = {history_key(window.history) for window in fitted.windows}
    others = [one for one in usable if history_key(one.history) not in chosen_by]
    n_held_out = max(1, len(usable) - len(others))
    part = min(1.0, len(found.windows) / n_held_out)
    windows = [*found.windows, *sample_part(others, part, plan.seed)]
    known = HeldOutPredictions({**fitted.everybody_weights.rows, **fitted.held_out.rows})
    forecaster = found.language.calibrated_forecaster(
        held_out_forecaster(known, windows), found.titles
    )
    weights = predict_weights(forecaster, [window.history for window in windows])
    return StatementProbabilities.fit(windows, weights, seed=plan.seed)
