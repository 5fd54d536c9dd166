"""What an engine is made of: its log, what forecasts and ranks, and the model loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from llmrec.data.calendar import MILLISECOND, to_datetime64
from llmrec.data.dataset import Dataset
from llmrec.data.files import restore_folder
from llmrec.data.readers import load_dataset
from llmrec.engine_folder import (
    ADAPTER_FOLDER,
    CALIBRATION_FILE,
    CATALOG_FILE,
    EngineFiles,
    fitted_dataset,
    is_engine,
    load_serving_dataset,
    require_parts,
    save_engine,
    with_engine_features,
)
from llmrec.engine_language import (
    LoadedLanguage,
    is_llm_installed,
    load_language,
    require_model_options,
    selective_language,
)
from llmrec.engine_resolve import (
    FoundSettings,
    found_in,
    require_fitted_before,
    resolve_settings,
    with_log,
)
from llmrec.engine_settings import SETTINGS_FILE, EngineSettings
from llmrec.errors import DataError, OptionError
from llmrec.forecast import Forecaster
from llmrec.forecasters.horizon import LaterPeriods
from llmrec.forecasters.loading import stored_forecaster
from llmrec.forecasters.statement_probabilities import StatementProbabilities
from llmrec.language.backends import describe_options, saved_options
from llmrec.ranking.blend import Blend
from llmrec.ranking.registry import stored_blend

DEFAULT_MODEL = "smollm2-135m"
ModelChoice = Literal["auto", "selective"] | None


@dataclass(frozen=True)
class EngineParts:
    """What a name, a log and a cutoff make an engine of.

    Attributes
    ----------
    dataset, cutoff
        The log as it was known before the cutoff, and the cutoff; or a dataset without a log.
    later_users
        Those of the log who have no event before it.
    prior, language
        What forecasts by numbers alone, and the language model on top; None: there is none.
    statements
        Probabilities of statements, fitted on forecasts with the model's part if there was one;
        None: the engine has none.
    new_items
        What ranks items that nobody has taken yet; None: the blend does.
    later
        What forecasts later periods than the next, as far as it was fitted.
    warning
        What was left out, why, and the way out; "" if nothing was.
    titles_weight
        Of the model's titles in the folder's blend, where they are left out for now.
    n_forgotten
        People whose events were removed since it was loaded or made.
    """

    dataset: Dataset
    cutoff: np.datetime64
    later_users: pd.Index[str]
    settings: EngineSettings
    prior: Forecaster
    language: LoadedLanguage | None
    blend: Blend
    statements: StatementProbabilities | None = None
    new_items: Blend | None = None
    later: LaterPeriods | None = None
    warning: str = ""
    titles_weight: float = 0.0
    n_forgotten: int = 0

    @property
    def forecaster(self) -> Forecaster:
        """What forecasts: the prior, or the language model on top of it."""
        if self.language is None:
            return self.prior
        return self.language.forecaster(self.prior, self.settings.titles)

    @property
    def has_whole_log(self) -> bool:
        """Whether the log holds everybody, and not only people whose events were appended."""
        return len(self.dataset.log) > 0 and self.dataset.population is None

    @property
    def later_periods(self) -> LaterPeriods:
        """Give ``later``, if it is of this forecaster, or else one that nothing was fitted for."""
        if self.later is not None and self.later.forecaster is self.prior:
            return self.later
        return LaterPeriods(self.prior, self.dataset)


def load_engine_parts(
    name: str,
    data: Dataset | str | Path | None,
    cutoff: np.datetime64 | str | None,
    model: ModelChoice,
    refit: bool,
    verify: bool,
    options: Mapping[str, Any],
) -> EngineParts:
    """Find or fit what forecasts and ranks, and load the model; see `from_pretrained`."""
    restore_folder(Path(name))
    use_model = _uses_model(name, model, options)
    is_folder, warnings = is_engine(name), []
    own = EngineSettings.load(Path(name, SETTINGS_FILE), verify=verify) if is_folder else None
    if not verify:
        options = {**options, "verify": False} if use_model else options
        warnings.append(f"{name} was not compared with the hashes of what was saved.")
    if data is None and own is not None and own.is_whole:
        require_parts(Path(name), own)
    if data is None and own is not None and CATALOG_FILE in own.parts:
        if refit:
            raise DataError(
                f"engine {name} holds no log, and refit=True fits it on one: give it with data="
            )
        parts = _load_without_log(name, own, cutoff, use_model, options)
    else:
        whole = _open_dataset(name, data)
        whole = whole if own is None else with_engine_features(Path(name), own, whole)
        is_given = data is not None
        end = _default_cutoff(own, whole, is_given) if cutoff is None else to_datetime64(cutoff)
        whole, unknown = _with_engine_catalog(name, own, whole, end)
        known = whole.known_before(end)
        found = resolve_settings(name, own, whole, known, end, refit)
        later = whole.log.user_ids[whole.log.timestamp[whole.log.user_offsets[:-1]] >= end]
        parts = _assemble(found, name, known, end, later, use_model, refit, options)
        warnings.append(unknown)
    language, warnings = parts.language, [*warnings, parts.warning]
    if language is not None and model == "selective":
        language, unused = selective_language(language, parts.settings, name)
        warnings.append(unused)
    return replace(parts, language=language, warning=" ".join(filter(None, warnings)))


def save_parts(parts: EngineParts, folder: Path, *, with_catalog: bool) -> None:
    """Write an engine's folder, see `InterestEngine.save_pretrained`."""
    language, statements = parts.language, parts.statements
    calibration = language.calibration or language.stored_calibration if language else None
    if calibration is None and language and (folder / CALIBRATION_FILE).exists():
        raise DataError(
            f"{folder / CALIBRATION_FILE} is of another fit, and this engine has none instead: "
            "call engine.fit(), or save into another folder."
        )
    settings = parts.settings if language else parts.settings.without_model()
    if not settings.is_whole:  # of format 1: the blend was fitted up to the cutoff
        settings = with_log(settings, parts.dataset, parts.cutoff)
    adapter = Path(language.model.adapter) if language and settings.adapter else None
    files = EngineFiles(
        parts.dataset.catalog if with_catalog else None,
        parts.dataset.everybody if with_catalog else None,
        stored_forecaster(parts.prior),
        stored_blend(parts.blend, parts.titles_weight),
        statements.stored() if statements else None,
        stored_blend(parts.new_items) if parts.new_items else None,
        parts.later_periods.stored(),
        calibration,
        adapter,
    )
    save_engine(folder, settings, files)


def _default_cutoff(own: EngineSettings | None, whole: Dataset, is_given: bool) -> np.datetime64:
    """Give the cutoff that an engine had, or the end of a log that is given and goes on after."""
    end: np.datetime64 = whole.log.timestamp.max() + MILLISECOND
    if own is None or not own.cutoff:
        return end
    before = to_datetime64(own.cutoff)
    if (is_given and before <= end) or not own.is_of(whole):
        return end
    return before


def _load_without_log(
    name: str,
    settings: EngineSettings,
    cutoff: np.datetime64 | str | None,
    use_model: bool,
    options: Mapping[str, Any],
) -> EngineParts:
    """Load an engine that serves people whose events are given, from what its folder holds."""
    folder = Path(name)
    own = settings.cutoff or settings.fitted_before
    end = to_datetime64(own if cutoff is None else cutoff)
    require_fitted_before(name, settings, end)
    dataset = load_serving_dataset(folder, settings)
    nobody = pd.Index([], dtype="str")
    found = found_in(folder, settings)
    return _assemble(found, name, dataset, end, nobody, use_model, False, options)


def _assemble(
    found: FoundSettings,
    name: str,
    dataset: Dataset,
    cutoff: np.datetime64,
    later: pd.Index[str],
    use_model: bool,
    refit: bool,
    options: Mapping[str, Any],
) -> EngineParts:
    settings, language, warning = found.settings, None, ""
    if use_model:
        found, options = _with_adapter(found, options)
        settings = found.settings
        why = f"{CALIBRATION_FILE} is missing" if found.lost_calibration else ""
        why = f"the engine was {found.left_out}" if found.left_out else why
        language = load_language(dataset, settings, found.calibration, why, options)
        if found.left_out or not refit:
            warning = describe_left_out(name, found, language)
    elif found.left_out:
        warning = _of_another_log(name, found)
    titles = language.title_scorers if language and language.calibration else {}
    if language is None or not language.title_scorers:
        settings = settings.without_titles()
    settings = replace(settings, cutoff=str(cutoff))
    blend = found.blend(dataset, cutoff, titles)
    prior = found.prior(dataset.catalog)
    waiting = 0.0 if language is None or titles else found.titles_weight
    catalog = dataset.catalog
    ahead = found.later(prior, dataset, cutoff)
    learned = prior, language, blend, found.statements(catalog), found.new_items(catalog), ahead
    return EngineParts(dataset, cutoff, later, settings, *learned, warning, waiting)


def _with_adapter(
    found: FoundSettings, options: Mapping[str, Any]
) -> tuple[FoundSettings, dict[str, Any]]:
    """Give settings and loading options of the adapter that is asked for, or is the engine's."""
    settings, adapter = found.settings, found.adapter
    if options.get("adapter"):
        adapter = Path(options["adapter"])
        settings = replace(settings.with_adapter_prompt(adapter), adapter=ADAPTER_FOLDER)
    elif adapter is None:
        settings = settings.with_adapter_prompt(Path(settings.model))  # a merged model
    options = saved_options(settings.precision, options) | dict(options)
    if adapter is not None:
        options["adapter"] = adapter
    return replace(found, settings=settings), options


def _uses_model(name: str, model: ModelChoice, options: Mapping[str, Any]) -> bool:
    """Whether a language model is loaded: not if it is not wanted, or by default not installed."""
    if model not in ("auto", "selective", None):
        raise DataError(f"model is {model!r}; it should be 'auto', 'selective', or None for none")
    settings = Path(name, SETTINGS_FILE)
    has_none = settings.is_file() and not EngineSettings.load(settings, verify=False).model
    if model is None or has_none:
        if options:
            why = "model=None" if model is None else f"{settings} names no model"
            raise OptionError(f"from_pretrained() got {', '.join(options)}, and {why}")
        return False
    if not is_llm_installed() and (name == DEFAULT_MODEL or settings.is_file()) and not options:
        return False
    require_model_options(options)
    return True


def _with_engine_catalog(
    name: str, settings: EngineSettings | None, whole: Dataset, end: np.datetime64
) -> tuple[Dataset, str]:
    """Give a log the catalog of the engine that was fitted on it, and say what that leaves out.

    Where a catalog comes from the log it grows, and an engine knows the items of its fit.
    """
    if settings is None or not settings.is_whole or not settings.is_of(whole):
        return whole, ""
    if to_datetime64(settings.fitted_before) > end:
        return whole, ""
    own = whole.with_catalog_before(to_datetime64(settings.fitted_before))
    gone = len(whole.log) - len(own.log)
    if not gone:
        return own, ""
    return own, (
        f"engine {name} does not know items that came after its fit: {gone} of {len(whole.log)} "
        "events are left out until it is fitted again."
    )


def _open_dataset(name: str, data: Dataset | str | Path | None) -> Dataset:
    """Read the log if it is not given: by default the one that an engine was fitted on."""
    data = fitted_dataset(name) if data is None else data
    dataset = load_dataset(data) if isinstance(data, str | Path) else data
    if not isinstance(dataset, Dataset):
        raise DataError(f"data is a Dataset, or what load_dataset takes, not {type(data)}")
    return dataset


def _of_another_log(name: str, found: FoundSettings) -> str:
    return (
        f"engine {name} was {found.left_out}. Counting and blend are of this log, and category "
        "scores have no weight until engine.fit() is called."
    )


def describe_left_out(name: str, found: FoundSettings, language: LoadedLanguage) -> str:
    """Say what of an engine or model is left out, why, and the way out; "" if nothing is."""
    if found.left_out:
        return _of_another_log(name, found)
    model, stored = language.model, language.stored_calibration
    titles = f"the titles that {model.name} expects"
    if language.calibration is not None:
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
    options = {"backend": "torch"} if " " in model.precision else {}
    options |= saved_options(precision, {})
    how = f", say with {describe_options(options)}" * (precision != model.precision)
    return (
        f"the stored calibration is not of these weights ({model.name} in {model.precision}): "
        f"without {lost} until it is loaded as it was calibrated{how}, or engine.fit() is called."
    )
