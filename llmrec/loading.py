"""What an engine's name stands for: settings, found or fitted; the model, and what it may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec.contracts import Forecaster, ItemScorer
from llmrec.data.calendar import as_time
from llmrec.data.readers import Dataset
from llmrec.errors import DataError
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.adapters import AdapterAbout
from llmrec.ranking.named import FORETOLD
from llmrec.settings import (
    CALIBRATION_FILE,
    SETTINGS_FILE,
    EngineSettings,
    fit_settings,
    shipped_folder,
)

if TYPE_CHECKING:
    from llmrec.forecasters.calibration import Calibration
    from llmrec.forecasters.llm import LLMForecaster


def fitted_on(name: str) -> str:
    """Name the log that an engine's folder was fitted on; of anything else the default one."""
    file = Path(name) / SETTINGS_FILE
    return (EngineSettings.load(file).dataset if file.is_file() else "") or "ml-100k"


def settings_behind(
    name: str, dataset: Dataset, cutoff: np.datetime64, refit: bool
) -> tuple[EngineSettings, Path | None]:
    """Find or fit the settings behind a name, and the engine's folder if there is one."""
    own, shipped = Path(name), shipped_folder(dataset.name)
    if (own / SETTINGS_FILE).is_file():
        settings = EngineSettings.load(own / SETTINGS_FILE)
        if refit:
            kept = ("model", "template", "budget", "adapter")
            fitted = replace(
                fit_settings(dataset), **{field: getattr(settings, field) for field in kept}
            )
            return fitted, own
        if settings.fitted_before and as_time(settings.fitted_before) > cutoff:
            raise DataError(
                f"engine {name} was fitted on events up to {settings.fitted_before}, beyond the "
                f"cutoff {cutoff}. Give a later cutoff, or refit=True."
            )
        return settings, own
    if not refit and (shipped / SETTINGS_FILE).is_file():
        settings = EngineSettings.load(shipped / SETTINGS_FILE)
        if settings.hold_for(dataset, cutoff):
            own_model = settings.model == name
            return (settings, shipped) if own_model else (settings.untuned(name), None)
    return replace(fit_settings(dataset), model=name), None


def written_for(settings: EngineSettings, tuned: Path) -> EngineSettings:
    """Write prompts like those that an adapter, or a merged model, was trained on."""
    about = AdapterAbout.find(tuned)
    if about is None:
        return settings
    budget = int(about.config.get("budget", settings.budget))
    return replace(settings, template=about.prompt, budget=budget)


def load_forecaster(
    dataset: Dataset,
    settings: EngineSettings,
    calibrated: Path | None,
    loading: Mapping[str, Any],
) -> tuple[LLMForecaster, Calibration | None]:
    """Load the model and the folder's calibration, and use this if it is of that very model."""
    from llmrec.evaluation.report import codec_for
    from llmrec.forecasters.calibration import Calibration
    from llmrec.forecasters.llm import LLMForecaster
    from llmrec.forecasters.titles import ForetoldTitles
    from llmrec.language.model import LanguageModel

    model = LanguageModel.load(settings.model, **loading)
    codec = codec_for(dataset, model, template=settings.template, budget=settings.budget)
    if about := AdapterAbout.find(Path(model.adapter or settings.model)):
        about.check(model.base_fingerprint, codec.labels, codec.template)
    prior: Forecaster = DecayedDirichlet(**settings.counting)
    if calibrated is None or not (calibrated / CALIBRATION_FILE).is_file():
        return LLMForecaster(model, codec, prior), None
    at_hand = Calibration.load(calibrated / CALIBRATION_FILE, dataset.catalog.categories)
    if at_hand.model != model.fingerprint:
        why = "the calibration at hand is of another model or precision"
        return LLMForecaster(model, codec, prior, uncalibrated=why), at_hand
    if settings.titles and model.memory is not None:
        prior = ForetoldTitles(model, codec, prior, settings.titles)
    return LLMForecaster(model, codec, prior, at_hand), at_hand


def titles_scorer(forecaster: LLMForecaster) -> dict[str, ItemScorer]:
    """Give the model as a scorer of items, by its name in settings, if it foretells titles."""
    from llmrec.ranking.foretold import ForetoldItems

    if forecaster.model.memory is None:
        return {}
    return {FORETOLD: ForetoldItems(forecaster.model, forecaster.codec)}


def left_out(forecaster: LLMForecaster, settings: EngineSettings, *, refused: bool) -> str:
    """Say what of an uncalibrated model is left out, and the way out."""
    model = forecaster.model
    titles = f"the titles that {model.name} foretells"
    if not refused:
        return f"nothing says how far to trust {titles}: without them until engine.fit() is called."
    lost = "its reading" + f" and {titles}" * (model.memory is not None)
    precision = "float32" if settings.precision == "auto" else settings.precision
    how = f", say with dtype={precision!r}" * (precision != model.precision)
    return (
        f"the calibration at hand is not of these weights ({model.name} in {model.precision}): "
        f"without {lost} until it is loaded as it was calibrated{how}, or engine.fit() is called."
    )
