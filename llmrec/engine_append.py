"""An engine's parts with events appended, or statistics fitted again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np

from llmrec.data.calendar import MILLISECOND, to_datetime64
from llmrec.data.catalog import Catalog
from llmrec.data.catalog_growth import with_new_items
from llmrec.data.dataset import Dataset
from llmrec.data.ids import read_ids
from llmrec.data.interactions import Interactions
from llmrec.data.log_updates import add_events
from llmrec.data.new_events import NewEvents, rows_of_items
from llmrec.data.population import Population
from llmrec.data.provenance import events_fingerprint
from llmrec.data.validation import DUPLICATE, ITEM_ID, to_pandas
from llmrec.engine_config import EngineParts
from llmrec.engine_folder import catalog_fingerprint
from llmrec.engine_language import LoadedLanguage
from llmrec.engine_settings import EngineSettings
from llmrec.errors import DataError
from llmrec.forecast import Forecaster
from llmrec.forecasters.loading import KINDS_WITH_ITEMS
from llmrec.ranking.blend import Blend
from llmrec.ranking.more_items import blend_with_items, takes_new_items
from llmrec.ranking.registry import refit_statistics
from llmrec.types import IntArray


@dataclass(frozen=True, eq=False)
class AppendReport:
    """What became of the rows of an `InterestEngine.append`.

    Attributes
    ----------
    n_accepted
        Events that were added.
    n_new_people, n_new_items
        People and items that the engine did not know before.
    left_out
        Reason to the numbers of the rows that were not added, such as "duplicate" for an event that
        the log has, or that came twice.
    cutoff
        Start of the period that the engine now forecasts.
    unknown_items
        Ids of given items that could not join the catalog.
    """

    n_accepted: int
    n_new_people: int
    n_new_items: int
    left_out: Mapping[str, IntArray]
    cutoff: np.datetime64
    unknown_items: tuple[str, ...] = ()

    @property
    def n_duplicates(self) -> int:
        """Events that the engine had already."""
        return len(self.left_out.get(DUPLICATE, ()))

    def __str__(self) -> str:
        """Say it in a line."""
        said = [f"{self.n_accepted:,} events added"]
        said += [f"{self.n_new_people:,} new people"] * bool(self.n_new_people)
        said += [f"{self.n_new_items:,} new items"] * bool(self.n_new_items)
        said += [f"{len(self.unknown_items):,} items left out"] * bool(self.unknown_items)
        said += [f"{len(rows):,} left out: {reason}" for reason, rows in self.left_out.items()]
        return ", ".join(said)


def append_events(
    parts: EngineParts, events: Any, items: Any = None, latest: Any = None
) -> tuple[EngineParts, AppendReport]:
    """Give the parts with events added, see `InterestEngine.append`; the given ones stay as is."""
    dataset = parts.dataset
    log = dataset.log.align_to(dataset.catalog)
    last = None if latest is None else to_datetime64(latest)
    new = NewEvents.read(events, latest=last, day_first=log.day_first)
    catalog = _grown_catalog(parts, rows_of_items(events, new), items)
    grown = add_events(log, new, catalog)
    n_accepted, n_new_items = len(grown.events), catalog.n_items - dataset.catalog.n_items
    report = AppendReport(
        n_accepted,
        grown.log.n_users - log.n_users,
        n_new_items,
        grown.events.left_out,
        np.append(grown.added_times + MILLISECOND, parts.cutoff).max(),
        _unknown_items(items, catalog),
    )
    if not (n_accepted or n_new_items):
        return parts, report
    population = grown.extend(dataset.everybody)
    changed = _with_log(dataset, grown.log, catalog, population)
    return with_dataset(parts, changed, report.cutoff), report


def refresh_parts(parts: EngineParts) -> EngineParts:
    """Give the parts with all statistics of items fitted on the log as it is now.

    Raises
    ------
    DataError
        If the engine has no log: what it was loaded with cannot be counted again.
    """
    if not parts.has_whole_log:
        raise DataError(
            "this engine holds no log to count its statistics in: load it with data=, or go on "
            "with those that it has; popularity and people are up to date without."
        )
    dataset, settings = parts.dataset, parts.settings
    log = dataset.log.align_to(dataset.catalog)
    return replace(
        parts,
        blend=_refit(parts.blend, log, dataset.catalog, parts.cutoff),
        new_items=parts.new_items and _refit(parts.new_items, log, dataset.catalog, parts.cutoff),
        settings=replace(
            settings,
            fitted_before=str(parts.cutoff),
            trained_before=settings.trained_before or settings.fitted_before,
            data=events_fingerprint(log),
            n_users=log.n_users,
            n_events=len(log),
        ),
    )


def take_statistics(now: EngineParts, refreshed: EngineParts) -> EngineParts | None:
    """Give the parts as they are now with statistics that were fitted on those of before.

    None if somebody was forgotten meanwhile, whose events are in them, or others are weighed.
    """
    if now.n_forgotten != refreshed.n_forgotten or _weights(now) != _weights(refreshed):
        return None
    n_before, catalog = refreshed.dataset.catalog.n_items, now.dataset.catalog
    if catalog.n_items > n_before:
        refreshed = _with_catalog(refreshed, n_before, catalog)
    settings = replace(refreshed.settings, cutoff=now.settings.cutoff)
    return replace(now, blend=refreshed.blend, new_items=refreshed.new_items, settings=settings)


def _weights(parts: EngineParts) -> list[list[float]]:
    return [list(one.weights) for one in (parts.blend, parts.new_items) if one is not None]


def _refit(blend: Blend, log: Interactions, catalog: Catalog, cutoff: np.datetime64) -> Blend:
    scorers = [refit_statistics(scorer, log, catalog, cutoff) for scorer in blend.scorers]
    return replace(blend, scorers=tuple(scorers))


def _with_log(
    dataset: Dataset, log: Interactions, catalog: Catalog, population: Population
) -> Dataset:
    """Give a dataset with a grown log and catalog, and what everybody took."""
    shown = dataset.impressions
    if dataset.population is None:
        population.keep_for(log)
    return replace(
        dataset,
        log=log,
        catalog=catalog,
        population=None if dataset.population is None else population,
        impressions=shown and shown.align_to(catalog),
    )


def with_dataset(parts: EngineParts, dataset: Dataset, cutoff: np.datetime64) -> EngineParts:
    """Give the parts with a changed dataset and cutoff; scorers know its items, if it has more."""
    n_before, later, ahead = parts.dataset.catalog.n_items, parts.later_users, parts.later
    if len(later):
        later = later[~later.isin(dataset.log.user_ids)]
    if ahead is not None and parts.has_whole_log:
        ahead = replace(ahead, dataset=dataset)
    settings = replace(parts.settings, cutoff=str(cutoff))
    found = replace(
        parts, dataset=dataset, cutoff=cutoff, later_users=later, later=ahead, settings=settings
    )
    if dataset.catalog.n_items == n_before:
        return found
    return _with_catalog(found, n_before, dataset.catalog)


def _with_catalog(parts: EngineParts, n_before: int, catalog: Catalog) -> EngineParts:
    """Give the parts with scorers for a catalog that has more items than they were fitted for."""
    new_items = parts.new_items
    return replace(
        parts,
        blend=blend_with_items(parts.blend, n_before, catalog),
        new_items=new_items and blend_with_items(new_items, n_before, catalog),
        settings=replace(parts.settings, catalog=catalog_fingerprint(catalog)),
    )


def _grown_catalog(parts: EngineParts, *frames: Any) -> Catalog:
    """Give the catalog with the new items of frames, where the engine's members can take some."""
    catalog = parts.dataset.catalog
    for frame in frames if _takes_new_items(parts) else ():
        if frame is not None and len(frame):
            catalog = with_new_items(catalog, frame, parts.dataset.separator)
    return catalog


def _takes_new_items(parts: EngineParts) -> bool:
    """Whether there is one catalog, and nothing that has outputs for its own items alone."""
    forecasters = (parts.prior, *getattr(parts.prior, "experts", {}).values())
    if parts.dataset.parts or any(type(one).__name__ in KINDS_WITH_ITEMS for one in forecasters):
        return False
    return all(map(takes_new_items, filter(None, (parts.blend, parts.new_items))))


def _unknown_items(items: Any, catalog: Catalog) -> tuple[str, ...]:
    """Give the ids of a frame of items that a catalog does not have."""
    if items is None or not len(items):
        return ()
    given = read_ids(to_pandas(items)[ITEM_ID]).labels
    return (*given[catalog.item_ids.get_indexer(given) < 0],)


def _part(name: str) -> Any:
    """Give a class attribute by which an engine reads, and replaces, one of its parts."""

    def read(engine: UpdatableEngine) -> Any:
        return getattr(engine._parts, name)

    def change(engine: UpdatableEngine, value: Any) -> None:
        with engine._writing:
            changed = replace(engine._parts, **{name: value})
            engine._parts = replace(changed, later=changed.later_periods)

    return property(read, change)


class UpdatableEngine:
    """An engine's parts, in one reference that is replaced whole: who reads it has parts that fit.

    So sessions may be opened in other threads while events are appended. Those that write follow
    one another.
    """

    dataset: Dataset = _part("dataset")
    cutoff: np.datetime64 = _part("cutoff")
    settings: EngineSettings = _part("settings")
    blend: Blend = _part("blend")
    prior: Forecaster = _part("prior")
    language: LoadedLanguage | None = _part("language")

    def __init__(self, parts: EngineParts) -> None:
        self._writing, self._refreshing = Lock(), Lock()
        self._take(parts)

    def _take(self, parts: EngineParts) -> None:
        """Use other parts from now on, and what forecasts of them."""
        self.forecaster: Forecaster = parts.forecaster
        self._parts = replace(parts, later=parts.later_periods)

    @property
    def takes_new_items(self) -> bool:
        """Whether `append` can bring new items: not to nets, own scorers, several platforms."""
        return _takes_new_items(self._parts)

    def append(
        self, events: Any, *, items: Any = None, latest: np.datetime64 | str | None = None
    ) -> AppendReport:
        """Add events: people, and what everybody took, are up to date at once, without a fit.

        The cutoff moves to just after the newest event. What was fitted stays, and knows of new
        items their categories alone, until `refresh`. Sessions opened before do not change. An
        engine without a log keeps the events as the past of these people.

        Parameters
        ----------
        events
            Columns user_id, item_id and timestamp, as `Interactions.from_frame` reads them. New
            items join the catalog where ``categories`` (and ``title``) are there, too, and one of
            the categories is known; but for engines with nets of items or of several platforms.
        items
            New items that nobody need have taken: columns item_id, categories, title.
        latest
            Later events are left out; default: those after tomorrow.

        Raises
        ------
        DataError
            If a column is missing, or ids or times cannot be read; nothing has changed then.
        """
        with self._writing:
            self._parts, report = append_events(self._parts, events, items, latest)
        return report

    def refresh(self) -> None:
        """Fit the statistics of items on the log as it is now: what `append` leaves as it was.

        These are item similarities, factors, and what is read from titles and features, by their
        parameters and weights. Nets, trees, the forecaster and the calibration stay, with all that
        was chosen: ``settings.trained_before`` says of when they are. It may run in a thread beside
        sessions and `append`; what is appended meanwhile is in the next one.

        Raises
        ------
        DataError
            If the engine has no log: what it was loaded with cannot be counted again.
        """
        found = None
        with self._refreshing:
            while found is None:
                refreshed = refresh_parts(self._parts)
                with self._writing:
                    found = take_statistics(self._parts, refreshed)
                    self._parts = found or self._parts
