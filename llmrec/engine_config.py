"""An engine's settings: bundled, found in a folder or fitted; the model loaded from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import resources
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmrec.data.calendar import MILLISECOND, PeriodLength, to_datetime64
from llmrec.data.dataset import Dataset
from llmrec.data.files import atomic_write_text
from llmrec.data.periods import Window, truncate_log
from llmrec.data.splits import sample_windows
from llmrec.data.versions import FIRST_VERSION, __version__, rename_keys, unknown_keys
from llmrec.data.versions import SCORERS as OLD_SCORERS
from llmrec.data.windows import last_period_windows
from llmrec.errors import DataError
from llmrec.forecast import Forecaster, ItemScorer
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.adapters import AdapterMetadata
from llmrec.ranking.blend import Blend
from llmrec.ranking.fitting import MIN_FIT_WINDOWS, build_blend, fit_ranking
from llmrec.ranking.registry import LM_SCORER, SCORERS, registered_name

if TYPE_CHECKING:
    from llmrec.forecasters.calibration import Calibration
    from llmrec.forecasters.llm import LLMForecaster


SETTINGS_FILE, CALIBRATION_FILE = "engine.json", "calibration.json"
ADAPTER_FOLDER = "adapter"  # inside an engine's folder
FALLBACK_BLEND = {"PersonalRepeat": 1.0}  # the blend where there is nothing to fit one on


@dataclass(frozen=True)
class EngineSettings:
    """What an engine folder holds beside its calibration: plain values, stored as JSON.

    Attributes
    ----------
    model, template, budget
        Base model, prompt version, and tokens a prompt may have.
    counting
        Fields of `DecayedDirichlet`.
    blend
        Name of a scorer, see `llmrec.ranking.registry`, to its weight; those of 0 are not built.
    strength
        How hard the forecast tilts the ranking (0: not at all).
    titles
        Share of the expected titles in the prior, see `TitleForecaster`.
    adapter
        Folder of the adapter inside the model, beside the settings' file; "" if there is none.
    precision
        What the model was loaded in when it was calibrated, and is to be loaded in again; "auto"
        where it was not calibrated.
    dataset
        Name of the log, which `load_dataset` takes if it is one of those that it knows.
    period, data, fitted_before
        Length of the periods, fingerprint of the log, and the time at or after which nothing was
        used: what the fit is good for.
    """

    model: str = "smollm2-135m"
    template: str = "forecast-v1"
    budget: int = 300
    counting: Mapping[str, Any] = field(default_factory=dict)
    blend: Mapping[str, float] = field(default_factory=dict)
    strength: float = 1.0
    titles: float = 0.0
    adapter: str = ""
    precision: str = "auto"
    dataset: str = ""
    period: str = ""
    data: str = ""
    fitted_before: str = ""

    @classmethod
    def load(cls, path: Path) -> EngineSettings:
        """Read settings; DataError names an unknown field or broken JSON."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            version = values.pop("version", FIRST_VERSION)
            blend = rename_keys(values.get("blend", {}), OLD_SCORERS)
            for given, known in (
                (values, [one.name for one in fields(cls)]),
                (values.get("counting", {}), [one.name for one in fields(DecayedDirichlet)]),
                (blend, [*SCORERS, LM_SCORER]),
            ):
                if unknown := unknown_keys(given, known, version):
                    raise ValueError(unknown)
            return cls(**values | {"blend": blend})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is no engine's settings: {error}") from error

    def save(self, path: Path) -> None:
        """Write the settings, and which version of this package wrote them."""
        atomic_write_text(path, json.dumps({"version": __version__} | asdict(self), indent=1))

    def without_adapter(self, model: str) -> EngineSettings:
        """Give the same for a base model without an adapter."""
        plain = replace(self.without_titles(), model=model, adapter="", precision="auto")
        if not self.adapter:
            return plain
        return replace(plain, template=EngineSettings.template, budget=EngineSettings.budget)

    def without_titles(self) -> EngineSettings:
        """Give the same for a model without title embeddings, or without a calibration of them."""
        blend = {name: weight for name, weight in self.blend.items() if name != LM_SCORER}
        return replace(self, titles=0.0, blend=blend if any(blend.values()) else FALLBACK_BLEND)

    def valid_for(self, dataset: Dataset, cutoff: np.datetime64) -> bool:
        """Whether they were fitted on this very log and period, and on nothing after the cutoff."""
        if not self.fitted_before or to_datetime64(self.fitted_before) > cutoff:
            return False
        if self.period != dataset.period:
            return False
        return truncate_log(dataset.log, self.fitted_before).fingerprint == self.data


def bundled_engine(dataset: str) -> Path:
    """Where the package keeps the fitted engine of an embedded log; of others it has none."""
    return Path(str(resources.files("llmrec"))) / "engines" / Path(dataset).name


def fit_settings(dataset: Dataset) -> EngineSettings:
    """Fit counting and blend on the last period of a log; one too short gets defaults."""
    log, catalog = dataset.log, dataset.catalog
    about: dict[str, Any] = {
        "dataset": dataset.name,
        "period": dataset.period,
        "data": log.fingerprint,
        "fitted_before": str(log.timestamp.max() + MILLISECOND),
    }
    latest = last_period_windows(log, catalog, dataset.period)
    if len(latest) < MIN_FIT_WINDOWS:
        events = PeriodLength.parse(dataset.period).unit == "events"
        mix = {"mix": "all" if events else "last period"}
        return EngineSettings(counting=mix, blend=FALLBACK_BLEND, **about)
    counting = DecayedDirichlet().fit(latest)
    blend, strength = fit_ranking(dataset, sample_windows(latest, 500), counting)
    return EngineSettings(counting=counting.to_dict(), blend=blend, strength=strength, **about)


def fitted_dataset(name: str) -> str:
    """Name the log that an engine's folder was fitted on; of anything else the default one."""
    file = Path(name) / SETTINGS_FILE
    return (EngineSettings.load(file).dataset if file.is_file() else "") or "ml-100k"


def resolve_settings(
    name: str, dataset: Dataset, cutoff: np.datetime64, refit: bool
) -> tuple[EngineSettings, Path | None]:
    """Find or fit the settings behind a name, and the engine's folder if there is one."""
    own, shipped = Path(name), bundled_engine(dataset.name)
    if (own / SETTINGS_FILE).is_file():
        settings = EngineSettings.load(own / SETTINGS_FILE)
        if refit:
            of_model = ("model", "template", "budget", "adapter")
            fitted = replace(
                fit_settings(dataset), **{field: getattr(settings, field) for field in of_model}
            )
            return fitted, own
        if settings.fitted_before and to_datetime64(settings.fitted_before) > cutoff:
            raise DataError(
                f"engine {name} was fitted on events up to {settings.fitted_before}, beyond the "
                f"cutoff {cutoff}. Give a later cutoff, or refit=True."
            )
        return settings, own
    if not refit and (shipped / SETTINGS_FILE).is_file():
        settings = EngineSettings.load(shipped / SETTINGS_FILE)
        if settings.valid_for(dataset, cutoff):
            own_model = settings.model == name
            return (settings, shipped) if own_model else (settings.without_adapter(name), None)
    return replace(fit_settings(dataset), model=name), None


def with_adapter_prompt(settings: EngineSettings, adapter_folder: Path) -> EngineSettings:
    """Write prompts like those that an adapter, or a merged model, was trained on."""
    about = AdapterMetadata.load_if_present(adapter_folder)
    if about is None:
        return settings
    budget = int(about.config.get("budget", settings.budget))
    return replace(settings, template=about.prompt, budget=budget)


@dataclass(frozen=True)
class EngineParts:
    """What a name, a log and a cutoff make an engine of.

    Attributes
    ----------
    stored_calibration
        The calibration in the engine's folder, whether or not it is of the model as loaded.
    warning
        What was left out because nothing calibrates it, and the way out; "" if nothing was.
    """

    settings: EngineSettings
    forecaster: LLMForecaster
    blend: Blend
    stored_calibration: Calibration | None
    warning: str = ""


def load_engine_parts(
    name: str, dataset: Dataset, cutoff: np.datetime64, refit: bool, options: Mapping[str, Any]
) -> EngineParts:
    """Find or fit settings, load the model, and build the scorers; see `from_pretrained`.

    Parameters
    ----------
    dataset
        Cut at the cutoff.
    options
        Of `LanguageModel.load`.
    """
    _check_model_options(options)
    settings, folder = resolve_settings(name, dataset, cutoff, refit)
    adapter = options.get("adapter")
    if adapter:
        settings = replace(with_adapter_prompt(settings, Path(adapter)), adapter=ADAPTER_FOLDER)
    elif settings.adapter and folder is not None:
        adapter = folder / settings.adapter
    else:
        settings = with_adapter_prompt(settings, Path(settings.model))  # a merged model
    options = {"dtype": settings.precision} | dict(options)
    if adapter:
        options["adapter"] = Path(adapter)
    forecaster, stored = load_forecaster(dataset, settings, None if refit else folder, options)
    titles = title_scorers(forecaster)
    if not titles:
        settings = settings.without_titles()
    ranked = settings if forecaster.calibration else settings.without_titles()
    blend, warning = build_blend(dataset, cutoff, ranked.blend, titles), ""
    if not refit and forecaster.calibration is None and (stored or titles):
        warning = uncalibrated_warning(
            forecaster, settings, calibration_rejected=stored is not None
        )
    return EngineParts(settings, forecaster, blend, stored, warning)


def _check_model_options(options: Mapping[str, Any]) -> None:
    """Refuse what `LanguageModel.load` does not take, before anything is fitted."""
    from llmrec.language.model import LanguageModel

    try:
        signature(LanguageModel.load).bind_partial("", **options)
    except TypeError as error:
        hint = "; write= of version 0.1 is describe=" if "write" in options else ""
        raise TypeError(f"from_pretrained() {error}{hint}") from None


def load_forecaster(
    dataset: Dataset,
    settings: EngineSettings,
    calibration_folder: Path | None,
    options: Mapping[str, Any],
) -> tuple[LLMForecaster, Calibration | None]:
    """Load the model and the folder's calibration, and use this if it is of that very model."""
    from llmrec.forecasters.calibration import Calibration
    from llmrec.forecasters.llm import LLMForecaster, TitleForecaster
    from llmrec.language.codec import codec_for
    from llmrec.language.model import LanguageModel

    model = LanguageModel.load(settings.model, **options)
    codec = codec_for(dataset, model, template=settings.template, budget=settings.budget)
    if about := AdapterMetadata.load_if_present(Path(model.adapter or settings.model)):
        about.require_compatible(model.base_fingerprint, codec.labels, codec.template)
    prior: Forecaster = DecayedDirichlet(**settings.counting)
    if calibration_folder is None or not (calibration_folder / CALIBRATION_FILE).is_file():
        return LLMForecaster(model, codec, prior), None
    at_hand = Calibration.load(calibration_folder / CALIBRATION_FILE, dataset.catalog.categories)
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


def uncalibrated_warning(
    forecaster: LLMForecaster, settings: EngineSettings, *, calibration_rejected: bool
) -> str:
    """Say what of an uncalibrated model is left out, and the way out."""
    model = forecaster.model
    titles = f"the titles that {model.name} expects"
    if not calibration_rejected:
        return f"no calibration weighs {titles}: they are left out until engine.fit() is called."
    lost = "its category scores" + f" and {titles}" * (model.title_embeddings is not None)
    precision = "float32" if settings.precision == "auto" else settings.precision
    how = f", say with dtype={precision!r}" * (precision != model.precision)
    return (
        f"the stored calibration is not of these weights ({model.name} in {model.precision}): "
        f"without {lost} until it is loaded as it was calibrated{how}, or engine.fit() is called."
    )


def registered_weights(blend: Blend) -> dict[str, float]:
    """Give the weights of a blend by the names that settings have for its scorers.

    Raises
    ------
    DataError
        If settings have no name for a scorer.
    """
    named = [registered_name(scorer) for scorer in blend.scorers]
    unnamed = [shown for shown, name in zip(blend.names, named, strict=True) if not name]
    if unnamed:
        raise DataError(
            f"the blend holds {', '.join(map(repr, unnamed))}, which settings have no name for "
            "and could not make again: take them out of engine.blend before saving."
        )
    return {name: w for name, w in zip(named, blend.weights, strict=True) if name}


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
