"""A person taken out of a saved engine: counted out of its statistics, or fitted without them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llmrec.data.calendar import to_datetime64
from llmrec.data.dataset import Dataset
from llmrec.data.forget_certificate import ChangedPart, Trained, UnchangedPart
from llmrec.data.ids import find_id, format_id
from llmrec.engine import InterestEngine
from llmrec.engine_config import ModelChoice
from llmrec.engine_folder import (
    CATALOG_FILE,
    POPULATION_FILE,
    catalog_fingerprint,
    is_engine,
    log_difference,
    require_parts,
)
from llmrec.engine_forget import ADAPTER, FIT, STATISTICS, first_event, parts_that_saw
from llmrec.engine_language import is_llm_installed
from llmrec.engine_settings import N_FORGOTTEN, SETTINGS_FILE, Effort, EngineSettings
from llmrec.errors import DataError, MissingExtraError

_EFFORTS: dict[str, Effort] = {"quick": "quick", "standard": "standard", "best": "best"}


@dataclass(frozen=True, eq=False)
class CleanedEngine:
    """An engine without a person, to be saved.

    Attributes
    ----------
    folder, engine
        Where it was loaded from, and is written to by `save`.
    changed, unchanged
        What will then be removed, and what saw the person and stays.
    """

    folder: Path
    engine: InterestEngine
    changed: tuple[ChangedPart, ...]
    unchanged: tuple[UnchangedPart, ...]
    has_catalog: bool

    def save(self) -> None:
        """Write the engine in place of the one with the person."""
        self.engine.save_pretrained(self.folder, with_catalog=self.has_catalog)


def without_person(
    folder: Path, user_id: object, whole: Dataset, rest: Dataset, trained: Trained, use_llm: bool
) -> CleanedEngine | None:
    """Give a saved engine without a person; nothing is written yet. None: it holds nothing of them.

    Parameters
    ----------
    whole, rest
        The log with the person, and without. Which of the two an engine is of, its fingerprint
        tells, so that one that was cleaned already is not cleaned again.
    trained
        See `InterestEngine.forget`. "fit" takes an engine of any log and fits it on ``rest``.
    use_llm
        Whether a language model that it has stays with it.

    Raises
    ------
    DataError
        If it is no engine, or of another log, or the log without the person has another catalog,
        and it is not to be fitted; or something of it refuses.
    MissingExtraError
        If it has a language model, and the packages are missing that load it.
    """
    if not is_engine(str(folder)):
        raise DataError(f"{folder} holds no {SETTINGS_FILE}: it is no engine's folder.")
    settings = EngineSettings.load(folder / SETTINGS_FILE)
    require_parts(folder, settings)
    if settings.is_of(rest) and _has_population_of(folder, settings, rest):
        return None
    whole, rest = _as_read_by(settings, whole), _as_read_by(settings, rest)
    if settings.model and use_llm and not is_llm_installed():
        raise MissingExtraError(
            f"{folder} has a language model, which would be lost: pip install 'llmrec[llm]', or "
            "leave it out with --no-llm"
        )
    clean = _fit_without if trained == "fit" else _count_out
    engine, changed, unchanged = clean(folder, settings, user_id, whole, rest, trained, use_llm)
    if settings.model and not use_llm:
        changed = (*changed, ChangedPart("language model", "", "models", 1, 0))
    return CleanedEngine(
        folder,
        engine,
        tuple(replace(one, where=str(folder)) for one in changed),
        tuple(replace(one, where=str(folder)) for one in unchanged),
        CATALOG_FILE in settings.parts,
    )


_Cleaned = tuple[InterestEngine, tuple[ChangedPart, ...], tuple[UnchangedPart, ...]]


def _count_out(
    folder: Path,
    settings: EngineSettings,
    user_id: object,
    whole: Dataset,
    rest: Dataset,
    trained: Trained,
    use_llm: bool,
) -> _Cleaned:
    """Remove a person from the engine with its log, and fit its statistics again."""
    at_fit = _known_at_fit(settings, whole) if settings.is_of(whole) else whole
    if difference := log_difference(folder, settings, whole, at_fit.catalog):
        raise DataError(
            f"{folder} was {difference}, so nobody can be counted out of it: fit it again "
            "(--trained fit), or give its log as it was read then."
        )
    engine = _load(folder, settings, whole, use_llm, refit=False)
    found = engine.forget(user_id, trained=trained)
    changed, unchanged = found.changed, found.unchanged
    if any(one.part == STATISTICS for one in unchanged):
        n_before = settings.n_users
        engine.refresh()
        n_after = engine.settings.n_users
        changed += (ChangedPart(STATISTICS, "", "people they count", n_before, n_after),)
        unchanged = tuple(one for one in unchanged if one.part != STATISTICS)
    if not (engine.settings.is_of(rest) and _has_catalog_of(engine.settings, rest)):
        raise DataError(
            f"{folder}: the log without this person has other items, or other events of others, "
            "than counting them out leaves: fit it again (--trained fit)."
        )
    return engine, changed, unchanged


def _fit_without(
    folder: Path,
    settings: EngineSettings,
    user_id: object,
    whole: Dataset,
    rest: Dataset,
    trained: Trained,
    use_llm: bool,
) -> _Cleaned:
    """Fit the engine as it was fitted before, on the log without the person."""
    engine = _load(folder, settings, rest, use_llm, refit=True)
    engine.fit(_EFFORTS.get(settings.effort, "quick"), seed=settings.seed)
    n_before, n_after = settings.n_users, engine.settings.n_users
    changed = (ChangedPart("all that is fitted", "", "people it was fitted on", n_before, n_after),)
    is_known = find_id(whole.log.user_ids, format_id(user_id)) >= 0
    first = first_event(whole.log, user_id) if is_known else np.datetime64(0, "ms")
    seen = parts_that_saw(engine._parts, first)
    return engine, changed, tuple(one for one in seen if one.part == ADAPTER)


def _load(
    folder: Path, settings: EngineSettings, data: Dataset, use_llm: bool, *, refit: bool
) -> InterestEngine:
    end = settings.cutoff or settings.fitted_before or None
    model: ModelChoice = "auto" if use_llm else None
    return InterestEngine.from_pretrained(
        str(folder), data=data, cutoff=end, model=model, refit=refit
    )


def kept_after_forgetting(folder: Path) -> tuple[UnchangedPart, ...]:
    """Name what of a saved engine saw people who were forgotten after its fit; they may be any."""
    settings = EngineSettings.load(folder / SETTINGS_FILE)
    if not (n := settings.report.get(N_FORGOTTEN, 0)):
        return ()
    since = settings.trained_before or settings.fitted_before
    what = f"it saw {n:,} people who were forgotten since; {FIT}"
    return (UnchangedPart("what is no statistic of items", str(folder), since, what),)


def _as_read_by(settings: EngineSettings, dataset: Dataset) -> Dataset:
    """Give a log with the periods and words of an engine; its rows are read as they are."""
    return replace(
        dataset,
        period=settings.period or dataset.period,
        noun=settings.noun or dataset.noun,
        person=settings.person or dataset.person,
        verb=settings.verb or dataset.verb,
        repeat="exclude" if settings.repeat == "exclude" else "allow",
    )


def _known_at_fit(settings: EngineSettings, dataset: Dataset) -> Dataset:
    """Give a log with the items that it named before the end of an engine's fit."""
    return dataset.with_catalog_before(to_datetime64(settings.fitted_before))


def _has_population_of(folder: Path, settings: EngineSettings, rest: Dataset) -> bool:
    """Whether as many events are in an engine's population as a log has before its cutoff.

    Events that were appended after the fit are in it, and not in the fingerprint.
    """
    if POPULATION_FILE not in settings.parts or not settings.cutoff:
        return True
    import pyarrow.parquet as pq

    known = _known_at_fit(settings, rest).known_before(to_datetime64(settings.cutoff))
    return bool(pq.read_metadata(folder / POPULATION_FILE).num_rows == known.everybody.n_events)


def _has_catalog_of(settings: EngineSettings, rest: Dataset) -> bool:
    """Whether an engine has the items and categories that a log has at the end of its fit."""
    return settings.catalog in ("", catalog_fingerprint(_known_at_fit(settings, rest).catalog))
