"""The settings behind a name: found in a folder, bundled with the package, or fitted here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from llmrec.data.calendar import MILLISECOND, to_datetime64
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.provenance import events_fingerprint
from llmrec.data.stored import VALUES_FILE, Stored
from llmrec.data.text_times import date_order
from llmrec.engine_fit import FittedEngine, fit_engine
from llmrec.engine_folder import (
    CALIBRATION_FILE,
    FORECAST_FOLDER,
    HORIZON_FOLDER,
    NEW_ITEMS_FOLDER,
    RANKING_FOLDER,
    STATEMENTS_FOLDER,
    bundled_engine,
    catalog_fingerprint,
    has_lost_calibration,
    log_difference,
    require_parts,
)
from llmrec.engine_settings import FORMAT, SETTINGS_FILE, EngineSettings
from llmrec.errors import DataError
from llmrec.forecast import Forecaster, ItemScorer
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.horizon import LaterPeriods
from llmrec.forecasters.loading import load_forecaster
from llmrec.forecasters.statement_probabilities import StatementProbabilities
from llmrec.language.adapters import AdapterMetadata
from llmrec.ranking.blend import Blend
from llmrec.ranking.fitting import build_blend
from llmrec.ranking.registry import load_blend, stored_titles_weight


def describe_fit(dataset: Dataset, fitted: FittedEngine, seed: int = 0) -> EngineSettings:
    """Give the settings that say what was fitted on which log."""
    settings = EngineSettings(
        effort=fitted.effort,
        seed=seed,
        report=json.loads(json.dumps(fitted.report)),  # as it is read again
        strength=fitted.strength,
        new_strength=fitted.new_items.strength if fitted.new_items else 0.0,
    )
    return with_log(settings, dataset, dataset.log.timestamp.max() + MILLISECOND)


def with_log(settings: EngineSettings, dataset: Dataset, end: np.datetime64) -> EngineSettings:
    """Say in settings what all was fitted on before a time; they are those of a whole folder."""
    log = dataset.log
    return replace(
        settings,
        format=FORMAT,
        counting={},
        blend={},
        dataset=dataset.name,
        period=dataset.period,
        data=events_fingerprint(log),
        fitted_before=str(end),
        noun=dataset.noun,
        person=dataset.person,
        verb=dataset.verb,
        repeat=dataset.repeat,
        dates=date_order(log.day_first) or "",
        catalog=catalog_fingerprint(dataset.catalog),
        n_users=log.n_users,
        n_events=len(log),
        platforms=dataset.platforms.names,
    )


@dataclass(frozen=True)
class FoundSettings:
    """The settings behind a name, and what of an engine's folder is used with them.

    Attributes
    ----------
    fitted
        What was fitted here; None: it is in the folder, or format 1 has names of it.
    folder
        Whose forecaster and blend are used; None: no folder's.
    adapter, calibration
        Folder of the adapter, and the one that the calibration is in; None: none is used.
    left_out
        What of an engine is not used, because it is of another log; "" if all is.
    """

    settings: EngineSettings
    fitted: FittedEngine | None = None
    folder: Path | None = None
    adapter: Path | None = None
    calibration: Path | None = None
    left_out: str = ""

    @property
    def lost_calibration(self) -> bool:
        """Whether the engine was saved with a calibration that its folder no longer has."""
        folder = self.calibration
        return folder is not None and has_lost_calibration(folder, self.settings)

    def prior(self, catalog: Catalog) -> Forecaster:
        """Give what forecasts by numbers alone."""
        if self.fitted is not None:
            return self.fitted.prior
        if self.settings.is_whole:
            assert self.folder is not None
            return load_forecaster(Stored.load(self.folder / FORECAST_FOLDER), catalog)
        return DecayedDirichlet(**self.settings.counting)

    def statements(self, catalog: Catalog) -> StatementProbabilities | None:
        """Give what knows probabilities of statements; engines of earlier versions have none."""
        if self.fitted is not None:
            return self.fitted.statements
        if f"{STATEMENTS_FOLDER}/{VALUES_FILE}" not in self.settings.parts:
            return None
        assert self.folder is not None
        stored = Stored.load(self.folder / STATEMENTS_FOLDER)
        return StatementProbabilities.from_stored(stored, catalog.categories)

    def new_items(self, catalog: Catalog) -> Blend | None:
        """Give what ranks items that nobody has taken; None: the blend does."""
        if self.fitted is not None:
            return self.fitted.new_items.blend if self.fitted.new_items else None
        if f"{NEW_ITEMS_FOLDER}/{VALUES_FILE}" not in self.settings.parts:
            return None
        assert self.folder is not None
        return load_blend(Stored.load(self.folder / NEW_ITEMS_FOLDER), catalog)

    def later(
        self, prior: Forecaster, dataset: Dataset, cutoff: np.datetime64
    ) -> LaterPeriods | None:
        """Give what forecasts later periods; None: nothing in the folder was fitted for it."""
        if self.fitted or f"{HORIZON_FOLDER}/{VALUES_FILE}" not in self.settings.parts:
            return None
        assert self.folder is not None
        stored = Stored.load(self.folder / HORIZON_FOLDER)
        return LaterPeriods.from_stored(stored, prior, dataset, cutoff)

    @property
    def titles_weight(self) -> float:
        """Weight of the model's titles in the folder's blend."""
        if self.fitted is not None or not self.settings.is_whole:
            return 0.0
        return stored_titles_weight(self._stored_blend)

    @cached_property
    def _stored_blend(self) -> Stored:
        assert self.folder is not None
        return Stored.load(self.folder / RANKING_FOLDER)

    def blend(
        self, dataset: Dataset, cutoff: np.datetime64, titles: Mapping[str, ItemScorer]
    ) -> Blend:
        """Give what ranks; without the model's titles where there are none."""
        if self.fitted is not None:
            return self.fitted.blend
        if self.settings.is_whole:
            return load_blend(self._stored_blend, dataset.catalog, titles)
        settings = self.settings if titles else self.settings.without_titles()
        return build_blend(dataset, cutoff, settings.blend, titles)


def resolve_settings(
    name: str,
    settings: EngineSettings | None,
    whole: Dataset,
    known: Dataset,
    cutoff: np.datetime64,
    refit: bool,
) -> FoundSettings:
    """Find the settings behind a name, or fit some with the effort "quick".

    Parameters
    ----------
    settings
        Of the engine's folder that the name is; None: it is a model's.
    whole, known
        The log, and what was known of it before the cutoff.

    Raises
    ------
    DataError
        If an engine's folder lacks a file, or was fitted on what lies after the cutoff.
    """
    if settings is None:
        return _resolve_model(name, known, cutoff, refit)
    folder = Path(name)
    require_parts(folder, settings)
    difference = log_difference(folder, settings, whole, known.catalog)
    if refit or difference:
        return _resolve_anew(folder, settings, known, cutoff, difference, refit)
    require_fitted_before(name, settings, cutoff)
    return found_in(folder, settings)


def require_fitted_before(name: str, settings: EngineSettings, cutoff: np.datetime64) -> None:
    """Raise DataError for an engine that was fitted on what lies after a cutoff."""
    if to_datetime64(settings.fitted_before) > cutoff:
        raise DataError(
            f"engine {name} was fitted on events up to {settings.fitted_before}, beyond the "
            f"cutoff {cutoff}. Give a later cutoff, or refit=True."
        )


def found_in(folder: Path, settings: EngineSettings) -> FoundSettings:
    """Give all that is in an engine's folder."""
    adapter = folder / settings.adapter if settings.adapter else None
    return FoundSettings(settings, None, folder, adapter, folder)


def _fit_anew(known: Dataset, model: str) -> FoundSettings:
    """Fit counting, statistics of items, and a tilt on a log."""
    fitted = fit_engine(known, "quick")
    return FoundSettings(replace(describe_fit(known, fitted), model=model), fitted)


def _resolve_model(name: str, known: Dataset, cutoff: np.datetime64, refit: bool) -> FoundSettings:
    """Give a model the bundled engine of an embedded log, or fit one."""
    folder, bundled = bundled_engine(known.name), _bundled_settings(known, cutoff)
    if refit or bundled is None:
        return _fit_anew(known, name)
    require_parts(folder, bundled)
    if bundled.model != name:
        return FoundSettings(bundled.without_adapter(name), folder=folder)
    return found_in(folder, bundled)


def _resolve_anew(
    folder: Path,
    settings: EngineSettings,
    known: Dataset,
    cutoff: np.datetime64,
    difference: str,
    refit: bool,
) -> FoundSettings:
    """Give the model of an engine a fit on this log; its adapter stays where it fits."""
    adapter = folder / settings.adapter if settings.adapter else None
    about = None if adapter is None else AdapterMetadata.load_if_present(adapter)
    fits = not difference or about is None or about.categories == known.catalog.categories
    stays = ("model", "template", "budget", "adapter") if fits else ("model",)
    bundled = None if refit else _bundled_settings(known, cutoff)
    if bundled:
        anew = FoundSettings(
            bundled.without_adapter(settings.model), folder=bundled_engine(known.name)
        )
    else:
        anew = _fit_anew(known, settings.model)
    kept = {name: getattr(settings, name) for name in stays}
    left_out = [] if refit else ["counting", "blend", "tilt"]
    if not fits:
        left_out.append("adapter")
    if not refit and (folder / CALIBRATION_FILE).is_file():
        left_out.append("calibration")
    if not refit and settings.titles:
        left_out.append("share of titles")
    why = f"{difference}: without its {', '.join(left_out)}" if difference and left_out else ""
    return replace(
        anew,
        settings=replace(anew.settings, **kept),
        adapter=adapter if fits else None,
        left_out=why,
    )


def _bundled_settings(known: Dataset, cutoff: np.datetime64) -> EngineSettings | None:
    """Give the settings of an embedded log's engine, if they are good for this cutoff."""
    path = bundled_engine(known.name) / SETTINGS_FILE
    settings = EngineSettings.load(path) if path.is_file() else None
    return settings if settings and settings.valid_for(known, cutoff) else None
