"""An engine's settings: bundled, found in a folder or fitted; the model loaded from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec.data.calendar import MILLISECOND, PeriodLength, to_datetime64
from llmrec.data.dataset import Dataset
from llmrec.data.periods import Window
from llmrec.data.provenance import events_fingerprint
from llmrec.data.readers import load_dataset
from llmrec.data.splits import sample_windows
from llmrec.data.windows import MIN_FIT_WINDOWS, last_period_windows
from llmrec.engine_folder import (
    ADAPTER_FOLDER,
    CALIBRATION_FILE,
    SETTINGS_FILE,
    EngineSettings,
    bundled_engine,
    fitted_dataset,
    has_lost_calibration,
    is_engine,
    log_difference,
    require_parts,
)
from llmrec.errors import DataError
from llmrec.forecast import Forecaster, ItemScorer
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.adapters import AdapterMetadata
from llmrec.ranking.blend import Blend
from llmrec.ranking.fitting import build_blend, fit_ranking
from llmrec.ranking.registry import LM_SCORER, fallback_blend

if TYPE_CHECKING:
    import pandas as pd

    from llmrec.forecasters.calibration import Calibration
    from llmrec.forecasters.llm import LLMForecaster


def fit_settings(dataset: Dataset) -> EngineSettings:
    """Fit counting and blend on the last period of a log; one too short gets defaults."""
    log, catalog = dataset.log, dataset.catalog
    about: dict[str, Any] = {
        "dataset": dataset.name,
        "period": dataset.period,
        "data": events_fingerprint(log),
        "fitted_before": str(log.timestamp.max() + MILLISECOND),
    }
    latest = last_period_windows(log, catalog, dataset.period)
    if len(latest) < MIN_FIT_WINDOWS:
        events = PeriodLength.parse(dataset.period).unit == "events"
        mix = {"mix": "all" if events else "last period"}
        return EngineSettings(counting=mix, blend=fallback_blend(dataset.repeat), **about)
    counting = DecayedDirichlet().fit(latest)
    blend, strength = fit_ranking(dataset, sample_windows(latest, 500), counting)
    return EngineSettings(counting=counting.to_dict(), blend=blend, strength=strength, **about)


@dataclass(frozen=True)
class FoundSettings:
    """The settings behind a name, and what of an engine's folder is used with them.

    Attributes
    ----------
    adapter, calibration
        Folder of the adapter, and the one that the calibration is in; None: none is used.
    left_out
        What of an engine is not used, because it is of another log; "" if all is.
    """

    settings: EngineSettings
    adapter: Path | None = None
    calibration: Path | None = None
    left_out: str = ""

    @property
    def lost_calibration(self) -> bool:
        """Whether the engine was saved with a calibration that its folder no longer has."""
        folder = self.calibration
        return folder is not None and has_lost_calibration(folder, self.settings)


def resolve_settings(
    name: str, whole: Dataset, known: Dataset, cutoff: np.datetime64, refit: bool
) -> FoundSettings:
    """Find or fit the settings behind a name.

    Parameters
    ----------
    whole, known
        The log, and what was known of it before the cutoff.

    Raises
    ------
    DataError
        If an engine's folder lacks a file, or was fitted on what lies after the cutoff.
    """
    if not is_engine(name):
        return _resolve_model(name, known, cutoff, refit)
    folder = Path(name)
    settings = EngineSettings.load(folder / SETTINGS_FILE)
    require_parts(folder, settings)
    difference = log_difference(folder, settings, whole, known.catalog.categories)
    if refit or difference:
        return _resolve_anew(folder, settings, known, cutoff, difference, refit)
    if to_datetime64(settings.fitted_before) > cutoff:
        raise DataError(
            f"engine {name} was fitted on events up to {settings.fitted_before}, beyond the "
            f"cutoff {cutoff}. Give a later cutoff, or refit=True."
        )
    return FoundSettings(settings, folder / settings.adapter if settings.adapter else None, folder)


def _resolve_model(name: str, known: Dataset, cutoff: np.datetime64, refit: bool) -> FoundSettings:
    """Give a model the bundled settings of an embedded log, or fit some."""
    folder, bundled = bundled_engine(known.name), _bundled_settings(known, cutoff)
    if refit or bundled is None:
        return FoundSettings(replace(fit_settings(known), model=name))
    if bundled.model != name:
        return FoundSettings(bundled.without_adapter(name))
    require_parts(folder, bundled)
    return FoundSettings(bundled, folder / bundled.adapter, folder)


def _resolve_anew(
    folder: Path,
    settings: EngineSettings,
    known: Dataset,
    cutoff: np.datetime64,
    difference: str,
    refit: bool,
) -> FoundSettings:
    """Give the model of an engine settings of this log; its adapter stays where it fits."""
    adapter = folder / settings.adapter if settings.adapter else None
    about = None if adapter is None else AdapterMetadata.load_if_present(adapter)
    fits = not difference or about is None or about.categories == known.catalog.categories
    stays = ("model", "template", "budget", "adapter") if fits else ("model",)
    bundled = None if refit else _bundled_settings(known, cutoff)
    anew = bundled.without_adapter(settings.model) if bundled else fit_settings(known)
    anew = replace(anew, **{name: getattr(settings, name) for name in stays})
    left_out = [] if refit else ["counting", "blend", "tilt"]
    if not fits:
        left_out.append("adapter")
    if not refit and (folder / CALIBRATION_FILE).is_file():
        left_out.append("calibration")
    if not refit and settings.titles:
        left_out.append("share of titles")
    why = f"{difference}: without its {', '.join(left_out)}" if difference and left_out else ""
    return FoundSettings(anew, adapter if fits else None, left_out=why)


def _bundled_settings(known: Dataset, cutoff: np.datetime64) -> EngineSettings | None:
    """Give the settings of an embedded log's engine, if they are good for this cutoff."""
    path = bundled_engine(known.name) / SETTINGS_FILE
    settings = EngineSettings.load(path) if path.is_file() else None
    return settings if settings and settings.valid_for(known, cutoff) else None


@dataclass(frozen=True)
class EngineParts:
    """What a name, a log and a cutoff make an engine of.

    Attributes
    ----------
    dataset, cutoff
        The log as it was known before the cutoff, and the cutoff.
    later_users
        Those of the log who have no event before it.
    stored_calibration
        The calibration in the engine's folder, whether or not it is of the model as loaded.
    warning
        What was left out, why, and the way out; "" if nothing was.
    """

    dataset: Dataset
    cutoff: np.datetime64
    later_users: pd.Index[str]
    settings: EngineSettings
    forecaster: LLMForecaster
    blend: Blend
    stored_calibration: Calibration | None
    warning: str = ""


def load_engine_parts(
    name: str,
    data: Dataset | str | Path | None,
    cutoff: np.datetime64 | str | None,
    refit: bool,
    options: Mapping[str, Any],
) -> EngineParts:
    """Find or fit settings, load the model, and build the scorers; see `from_pretrained`.

    ``options`` are those of `LanguageModel.load`.
    """
    _check_model_options(options)
    whole = _open_dataset(name, data)
    end = whole.log.timestamp.max() + MILLISECOND if cutoff is None else to_datetime64(cutoff)
    known = whole.known_before(end)
    found = resolve_settings(name, whole, known, end, refit)
    settings, adapter = found.settings, found.adapter
    if options.get("adapter"):
        adapter = Path(options["adapter"])
        settings = replace(settings.with_adapter_prompt(adapter), adapter=ADAPTER_FOLDER)
    elif adapter is None:
        settings = settings.with_adapter_prompt(Path(settings.model))  # a merged model
    options = {"dtype": settings.precision} | dict(options)
    if adapter is not None:
        options["adapter"] = adapter
    found = replace(found, settings=settings)
    forecaster, stored = load_forecaster(known, found, options)
    titles = title_scorers(forecaster)
    if not titles:
        settings = settings.without_titles()
    ranked = settings if forecaster.calibration else settings.without_titles()
    blend = build_blend(known, end, ranked.blend, titles)
    warning = ""
    if found.left_out or not refit:
        warning = describe_left_out(name, found, forecaster, stored)
    later = whole.log.user_ids[whole.log.timestamp[whole.log.user_offsets[:-1]] >= end]
    return EngineParts(known, end, later, settings, forecaster, blend, stored, warning)


def _open_dataset(name: str, data: Dataset | str | Path | None) -> Dataset:
    """Read the log if it is not given: by default the one that an engine was fitted on."""
    data = fitted_dataset(name) if data is None else data
    dataset = load_dataset(data) if isinstance(data, str | Path) else data
    if not isinstance(dataset, Dataset):
        raise DataError(f"data is a Dataset, or what load_dataset takes, not {type(data)}")
    return dataset


def _check_model_options(options: Mapping[str, Any]) -> None:
    """Refuse what `LanguageModel.load` does not take, before anything is fitted."""
    from llmrec.language.model import LanguageModel

    try:
        signature(LanguageModel.load).bind_partial("", **options)
    except TypeError as error:
        hint = "; write= of version 0.1 is describe=" if "write" in options else ""
        raise TypeError(f"from_pretrained() {error}{hint}") from None


def load_forecaster(
    dataset: Dataset, found: FoundSettings, options: Mapping[str, Any]
) -> tuple[LLMForecaster, Calibration | None]:
    """Load the model and the folder's calibration, and use this if it is of that very model."""
    from llmrec.forecasters.calibration import Calibration
    from llmrec.forecasters.llm import LLMForecaster, TitleForecaster
    from llmrec.language.codec import codec_for
    from llmrec.language.model import LanguageModel

    settings, why = found.settings, "no calibration was fitted"
    model = LanguageModel.load(settings.model, **options)
    codec = codec_for(dataset, model, template=settings.template, budget=settings.budget)
    if about := AdapterMetadata.load_if_present(Path(model.adapter or settings.model)):
        about.require_compatible(model.base_fingerprint, codec.labels, codec.template)
    prior: Forecaster = DecayedDirichlet(**settings.counting)
    if found.calibration is None or not (found.calibration / CALIBRATION_FILE).is_file():
        if found.left_out:
            why = f"the engine was {found.left_out}"
        elif found.lost_calibration:
            why = f"{CALIBRATION_FILE} is missing"
        return LLMForecaster(model, codec, prior, fallback_reason=why), None
    at_hand = Calibration.load(found.calibration / CALIBRATION_FILE, dataset.catalog.categories)
    if at_hand.model != model.fingerprint:
        why = "the stored calibration is of another model or precision"
        return LLMForecaster(model, codec, prior, fallback_reason=why), at_hand
    if settings.titles and model.title_embeddings is not None:
        prior = TitleForecaster(model, codec, prior, settings.titles)
    return LLMForecaster(model, codec, prior, at_hand), at_hand


def title_scorers(forecaster: LLMForecaster) -> dict[str, ItemScorer]:
    """Give the model as a scorer of items, by its name in settings, if it has title embeddings."""
    from llmrec.ranking.lm_scorer import LMItemScorer

    if forecaster.model.title_embeddings is None:
        return {}
    return {LM_SCORER: LMItemScorer(forecaster.model, forecaster.codec)}


def describe_left_out(
    name: str, found: FoundSettings, forecaster: LLMForecaster, stored: Calibration | None
) -> str:
    """Say what of an engine or model is left out, why, and the way out; "" if nothing is."""
    if found.left_out:
        return (
            f"engine {name} was {found.left_out}. Counting and blend are of this log, and "
            "category scores have no weight until engine.fit() is called."
        )
    model = forecaster.model
    titles = f"the titles that {model.name} expects"
    if forecaster.calibration is not None:
        return ""
    if stored is None and model.title_embeddings is None and not found.lost_calibration:
        return ""
    lost = "its category scores" + f" and {titles}" * (model.title_embeddings is not None)
    if found.lost_calibration:
        path = found.calibration and found.calibration / CALIBRATION_FILE
        return f"{path} is missing: without {lost} until it is back, or engine.fit() is called."
    if stored is None:
        return f"no calibration weighs {titles}: they are left out until engine.fit() is called."
    settings = found.settings
    precision = "float32" if settings.precision == "auto" else settings.precision
    how = f", say with dtype={precision!r}" * (precision != model.precision)
    return (
        f"the stored calibration is not of these weights ({model.name} in {model.precision}): "
        f"without {lost} until it is loaded as it was calibrated{how}, or engine.fit() is called."
    )


def require_not_trained_on(
    windows: Sequence[Window], about: AdapterMetadata | None, dataset: str
) -> None:
    """Refuse windows of the log that an adapter learned from if it saw what lies after a cutoff."""
    if about is None or about.dataset != dataset:
        return
    seen = sum(window.history.cutoff < to_datetime64(about.cutoff) for window in windows)
    if seen:
        raise DataError(
            f"the adapter learned from {dataset} up to {about.cutoff}, and {seen} of "
            f"{len(windows)} windows begin before: it may know what they are to validate. Give "
            "leave_out=was_trained_on(dataset), of llmrec.data.splits."
        )
