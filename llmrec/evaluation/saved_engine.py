"""Saved engines among the forecasters that are compared, on windows that they have not seen."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.calendar import to_datetime64
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.periods import History, Window
from llmrec.data.splits import EvaluationSplits, sample_windows
from llmrec.engine import InterestEngine
from llmrec.engine_folder import (
    CALIBRATION_FILE,
    catalog_fingerprint,
    has_lost_calibration,
    log_difference,
    with_engine_features,
)
from llmrec.engine_settings import SETTINGS_FILE, EngineSettings
from llmrec.errors import DataError
from llmrec.forecast import Forecast, Forecaster
from llmrec.language.adapters import AdapterMetadata
from llmrec.types import RepeatPolicy


@dataclass(frozen=True, eq=False)
class SavedEngine:
    """An engine that was saved, and the test windows to evaluate it on.

    Attributes
    ----------
    name
        What tables of results call it.
    forecaster
        Its forecasts, in the categories of the comparison.
    windows
        Test split to windows, for those splits that have some.
    """

    name: str
    forecaster: EngineForecaster
    windows: dict[str, list[Window]]

    @property
    def forecasters(self) -> dict[str, dict[str, list[Forecaster]]]:
        """By test split and name, like those of `LLMScores.to_forecasters`."""
        return {split: {self.name: [self.forecaster]} for split in self.windows}

    @property
    def engine(self) -> InterestEngine:
        """The engine itself."""
        return self.forecaster.engine


def load_saved_engines(
    folders: Iterable[str],
    dataset: Dataset,
    n: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> list[SavedEngine]:
    """Load several engines as `load_saved_engine` does; folders of one name have whole paths."""
    given = list(dict.fromkeys(folders))
    names = [Path(folder).name for folder in given]
    loaded = [load_saved_engine(folder, dataset, n, seed, options) for folder in given]
    return [
        one if names.count(name) == 1 else replace(one, name=f"engine {folder}")
        for one, name, folder in zip(loaded, names, given, strict=True)
    ]


def load_saved_engine(
    folder: str,
    dataset: Dataset,
    n: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
) -> SavedEngine:
    """Load an engine to evaluate it on n windows of each test split (all if None).

    Windows that begin before the engine's fit, or its adapter's training, ended are left out. Where
    the catalog comes from the log and has other items or categories now, the engine forecasts those
    that it was fitted with, of events that it knows, and people without such events are left out;
    see `EngineForecaster`.

    Parameters
    ----------
    folder
        What `InterestEngine.save_pretrained` wrote.
    options
        How its language model is loaded, see `LanguageModel.load`.

    Warns
    -----
    UserWarning
        If windows are left out or categories differ, and where `InterestEngine.from_pretrained`
        warns.

    Raises
    ------
    DataError
        If no window is left, or the forecasts would not be the engine's own: it cannot be loaded,
        was fitted on another log or with another catalog or period, or its calibration is missing
        or of other weights.
    """
    splits = EvaluationSplits.of(dataset)
    settings = EngineSettings.load(Path(folder, SETTINGS_FILE))
    known = _known_to_engine(Path(folder), settings, dataset)
    windows = _unseen_windows(folder, settings, known, splits.tests)
    cutoff = min(window.history.cutoff for found in windows.values() for window in found)
    engine = _load_engine(folder, settings, known, cutoff, options or {})
    forecaster = EngineForecaster(engine, known, splits.dataset.catalog)
    if not forecaster.is_same:
        windows = _require_known(folder, known.log.user_ids, windows)
    if forecaster.difference:
        warnings.warn(f"engine {folder}: {forecaster.difference}", stacklevel=2)
    sampled = {split: sample_windows(found, n, seed) for split, found in windows.items()}
    return SavedEngine(f"engine {Path(folder).name}", forecaster, sampled)


@dataclass(frozen=True, eq=False)
class EngineForecaster:
    """An engine's forecasts, each made once, in categories that may not all be its own.

    It forecasts from the histories of its own dataset, of the items that it knows. A category that
    it does not know gets the least weight that it gives any, one that is none any more is left out,
    and the weights are divided by their sum.

    Attributes
    ----------
    engine
        What forecasts.
    dataset
        The whole log, with the engine's catalog.
    catalog
        That of the histories to forecast.
    """

    engine: InterestEngine
    dataset: Dataset
    catalog: Catalog
    _made: dict[tuple[str, np.datetime64], Forecast] = field(default_factory=dict)

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the next periods, in the catalog's categories."""
        own = self.own_forecasts(histories)
        return own if not self.difference else [self._translate(one) for one in own]

    def own_forecasts(self, histories: Sequence[History]) -> list[Forecast]:
        """Forecast the next periods, in the engine's own categories; nothing twice."""
        keys = [(history.user_id, history.cutoff) for history in histories]
        new = [place for place, key in enumerate(keys) if key not in self._made]
        if new:
            own = self.own_histories([histories[place] for place in new])
            made = self.engine.forecaster.forecast(own)
            self._made.update(zip((keys[place] for place in new), made, strict=True))
        return [self._made[key] for key in keys]

    def own_histories(self, histories: Sequence[History]) -> list[History]:
        """Give the same people's histories of the items that the engine knows."""
        if self.is_same:
            return list(histories)
        by_cutoff: dict[np.datetime64, list[int]] = {}
        for place, history in enumerate(histories):
            by_cutoff.setdefault(history.cutoff, []).append(place)
        found = dict[int, History]()
        for cutoff, places in by_cutoff.items():
            users = [self.dataset.log.user_index(histories[place].user_id) for place in places]
            found |= zip(places, self.dataset.histories(cutoff, users), strict=True)
        return [found[place] for place in range(len(histories))]

    @property
    def repeat(self) -> RepeatPolicy:
        """Whether the engine lists items already taken: as it was fitted."""
        settings = self.engine.settings
        return "exclude" if (settings.repeat or self.dataset.repeat) == "exclude" else "allow"

    @cached_property
    def is_same(self) -> bool:
        """Whether the engine's catalog is that of the histories to forecast."""
        own = self.dataset.catalog
        return own is self.catalog or catalog_fingerprint(own) == catalog_fingerprint(self.catalog)

    @cached_property
    def difference(self) -> str:
        """Say which categories differ, and what becomes of them; "" if none does."""
        if self.dataset.catalog.categories == self.catalog.categories:
            return ""
        own, others = set(self.dataset.catalog.categories), set(self.catalog.categories)
        parts = []
        if added := sorted(others - own):
            parts.append(
                f"it was fitted without {_name_some(added)}, to which the least weight is given "
                "that it gives any category"
            )
        if gone := sorted(own - others):
            parts.append(f"it was fitted with {_name_some(gone)}, whose weights are left out")
        return "; ".join(parts) or "it was fitted with the categories in another order"

    def _translate(self, forecast: Forecast) -> Forecast:
        own_names = pd.Index(self.dataset.catalog.categories)
        places = own_names.get_indexer(pd.Index(self.catalog.categories))
        own = forecast.category_weights
        weights = np.where(places < 0, own.min(), own[places])
        return forecast.with_weights(weights / weights.sum())


def _name_some(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _known_to_engine(folder: Path, settings: EngineSettings, dataset: Dataset) -> Dataset:
    """Give the dataset with the catalog that an engine was fitted with.

    DataError if it was not fitted on this log: nothing of it would be in its forecasts.
    """
    known = dataset = with_engine_features(folder, settings, dataset)
    if settings.is_of(dataset):
        known = dataset.with_catalog_before(to_datetime64(settings.fitted_before))
    if difference := log_difference(folder, settings, known, known.catalog):
        raise DataError(
            f"engine {folder} was {difference}: nothing that it learned would be in its forecasts. "
            "Evaluate it on its own log, or fit an engine on this one."
        )
    return known


def _load_engine(
    folder: str,
    settings: EngineSettings,
    known: Dataset,
    cutoff: np.datetime64,
    options: Mapping[str, Any],
) -> InterestEngine:
    """Load an engine; DataError if it is without the calibration that it had."""
    engine = InterestEngine.from_pretrained(folder, data=known, cutoff=cutoff, **options)
    language, path = engine.language, Path(folder)
    had_one = (path / CALIBRATION_FILE).is_file() or has_lost_calibration(path, settings)
    if had_one and (language is None or language.calibration is None):
        why = "the packages of its language model are not installed: pip install 'llmrec[llm]'"
        why = why if language is None else language.why
        raise DataError(
            f"engine {folder} cannot be evaluated: {why}. Copy its whole folder, or fit it again "
            "and save it."
        )
    return engine


def _unseen_windows(
    folder: str, settings: EngineSettings, known: Dataset, tests: Mapping[str, Sequence[Window]]
) -> dict[str, list[Window]]:
    """Give the windows that begin after the fit, of the splits that have some.

    DataError if there is none.
    """
    end = _end_of_fit(Path(folder), settings, known)
    unseen = {split: _beginning_from(end, windows) for split, windows in tests.items()}
    windows = {split: found for split, found in unseen.items() if found}
    if not windows:
        raise DataError(
            f"engine {folder} was fitted on events up to {end}, and all windows to evaluate on "
            f"begin earlier: {_describe_windows(tests)}. Save an engine with an earlier cutoff."
        )
    n_seen = sum(map(len, tests.values())) - sum(map(len, windows.values()))
    if n_seen:
        warnings.warn(
            f"engine {folder} was fitted on events up to {end}: it is not evaluated on {n_seen} "
            f"windows that begin earlier, of {_describe_windows(tests)}.",
            stacklevel=3,
        )
    return windows


def _require_known(
    folder: str, users: pd.Index[str], windows: Mapping[str, list[Window]]
) -> dict[str, list[Window]]:
    """Give the windows of people whom an engine's log has; DataError if there is none."""
    found = {
        split: known
        for split, some in windows.items()
        if (known := [window for window in some if window.history.user_id in users])
    }
    if not found:
        raise DataError(
            f"engine {folder} knows nothing that the people to evaluate it on have taken: fit it "
            "again with a later cutoff."
        )
    return found


def _end_of_fit(folder: Path, settings: EngineSettings, dataset: Dataset) -> np.datetime64:
    """Give the time before which the engine may have used this log's events."""
    ends = [to_datetime64(settings.fitted_before)]
    if not settings.model:
        return max(ends)
    place = folder / settings.adapter if settings.adapter else Path(settings.model)
    about = AdapterMetadata.load_if_present(place)
    if about is not None and about.dataset == dataset.name:
        ends.append(to_datetime64(about.cutoff))
    return max(ends)


def _beginning_from(end: np.datetime64, windows: Sequence[Window]) -> list[Window]:
    return [window for window in windows if window.history.cutoff >= end]


def _describe_windows(tests: Mapping[str, Sequence[Window]]) -> str:
    """Name the splits with the number of their windows and when these begin."""
    named = []
    for split, windows in tests.items():
        days = [str(window.history.cutoff.astype("datetime64[D]")) for window in windows]
        when = " to ".join(dict.fromkeys((min(days), max(days)))) if days else "none"
        named.append(f"{split} ({len(days)}, {when})")
    return ", ".join(named)
