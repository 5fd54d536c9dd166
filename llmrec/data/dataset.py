"""A log with its catalog, and the nouns and rules of its domain."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data import join as joining
from llmrec.data.calendar import Anchor, PeriodLength
from llmrec.data.catalog import Catalog, drop_categories
from llmrec.data.impressions import Impressions
from llmrec.data.interactions import Interactions
from llmrec.data.log_items import catalog_of_rows, catalog_of_titles
from llmrec.data.new_user import events_of_new_user
from llmrec.data.periods import History, make_histories, truncate_log
from llmrec.data.population import Population
from llmrec.data.report import Finding
from llmrec.data.title_clusters import TitleCategories
from llmrec.data.validation import ITEM_ID, TIMESTAMP, USER_ID, require_columns, to_pandas
from llmrec.errors import DataError
from llmrec.types import RepeatPolicy

NEW_USER = "new user"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A log, its catalog, and what forecasts and rankings of it need to know.

    Attributes
    ----------
    name
        What tables of results call it.
    log
        The events, aligned with the catalog.
    catalog
        The items.
    period
        The period length that suits the log, such as "28D" or "10 events".
    noun, person
        What items and users are called in prompts and explanations: "films", "viewer".
    repeat
        Whether items already taken may be recommended again.
    verb
        What a person did with an item, as a participle: "taken", "watched", "bought", "read".
    reading
        How the files were read; `findings` has what their rows were found to hold, too.
    item_rows, separator
        Where the catalog comes from the log: what its rows say of items, see
        `llmrec.data.log_items`, and what separates categories there. None where the catalog is
        given apart: it may list items that nobody has taken yet.
    excluded
        Categories that `without_categories` has left out, at whatever cutoff.
    population
        What everybody took, aligned with the catalog; None: that of the log, which holds it.
    title_categories
        The clusters of titles that the categories are, where ``item_rows`` have titles alone.
    parts
        The datasets that it was joined of, without their events, by the names of their platforms.
    impressions
        The lists that people were shown, aligned with the catalog, where the log tells of them.
    anchor
        Where periods of histories begin, see `PeriodLength`: at fixed times for live use. Forecasts
        stay about a whole period from the cutoff on; what is fitted counts back from its cutoffs.
    source
        The log's file or folder; None where it is embedded, made up, or comes from a frame.
    """

    name: str
    log: Interactions
    catalog: Catalog
    period: str
    noun: str
    person: str
    repeat: RepeatPolicy
    verb: str = "taken"
    reading: tuple[Finding, ...] = ()
    item_rows: pd.DataFrame | None = None
    separator: str | None = None
    excluded: frozenset[str] = frozenset()
    population: Population | None = None
    title_categories: TitleCategories | None = None
    parts: Mapping[str, Dataset] = field(default_factory=dict)
    impressions: Impressions | None = None
    anchor: Anchor = "cutoff"
    source: Path | None = None

    @classmethod
    def without_log(
        cls,
        name: str,
        catalog: Catalog,
        population: Population,
        *,
        period: str,
        noun: str,
        person: str,
        repeat: RepeatPolicy,
        verb: str = "taken",
        day_first: bool | None = None,
    ) -> Dataset:
        """Give a dataset that knows nobody: each person's events are given, `new_user_history`.

        Parameters
        ----------
        population
            What everybody took, as indices into the catalog.
        day_first
            As of `Interactions`; all the others as of the dataset.
        """
        log = Interactions.empty(catalog.item_ids, day_first=day_first)
        return cls(name, log, catalog, period, noun, person, repeat, verb, population=population)

    @classmethod
    def join(cls, platforms: Mapping[str, Dataset]) -> Dataset:
        """Join the logs of several platforms, by name: people of one id are one person.

        An item or category of "drug" is called "drug: ...", so `new_user_history` takes such ids;
        `platform` gives the parts back. Whatever is fitted on it forecasts and ranks all platforms;
        `platforms` has what `Forecast.within` and the candidates of `rank` restrict to one of them.
        Findings count the people whom each two share. Platforms are in the order of their names,
        and nouns and verbs those of all, or else general ones.

        Raises
        ------
        DataError
            If a name is empty, too long, given twice or contains ":"; if there are fewer than two
            platforms, periods or ``repeat`` differ, or a platform shares nobody with another.
        """
        joining.require_names(list(platforms))
        given = dict(sorted(platforms.items()))
        of = list(given.values())
        joining.require_same(
            "the period", {n: PeriodLength.parse(p.period) for n, p in given.items()}
        )
        joining.require_same("repeat", {n: p.repeat for n, p in given.items()})
        joining.require_logs({n: 0 if p.population else len(p.log) for n, p in given.items()})
        logs = {name: part.log.align_to(part.catalog) for name, part in given.items()}
        common = joining.count_common_people(logs)
        catalog = joining.join_catalogs({name: part.catalog for name, part in given.items()})
        return cls(
            "+".join(given),
            joining.join_logs(logs, catalog),
            catalog,
            of[0].period,
            joining.common_word([part.noun for part in of], "items"),
            joining.common_word([part.person for part in of], "person"),
            of[0].repeat,
            joining.common_word([part.verb for part in of], "taken"),
            reading=(*joining.join_findings({n: p.findings for n, p in given.items()}), *common),
            parts={
                n: replace(p, log=Interactions.empty(p.catalog.item_ids), impressions=None)
                for n, p in given.items()
            },
        )

    def __repr__(self) -> str:
        """Say how much it holds, in a line."""
        parts = ", ".join(map(repr, (self.name, self.log, self.catalog)))
        return f"Dataset({parts}, period={self.period!r}, repeat={self.repeat!r})"

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What reading decided, changed, set aside and dropped, one entry a rule."""
        shown = self.impressions.findings if self.impressions else ()
        return (*self.reading, *self.catalog.report.findings, *self.log.report.findings, *shown)

    def known_before(self, cutoff: np.datetime64) -> Dataset:
        """Give the dataset as it was known just before a cutoff; DataError if it was empty."""
        known = self.with_catalog_before(cutoff)
        everybody = known.population and known.population.before(cutoff)
        shown = known.impressions and known.impressions.before(cutoff)
        log = truncate_log(known.log, cutoff)
        return replace(known, log=log, population=everybody, impressions=shown)

    def with_catalog_before(self, cutoff: np.datetime64) -> Dataset:
        """Give the dataset with the items and categories alone that its log names before a cutoff.

        Later events of other items are dropped, and a later cutoff brings nothing back; clusters of
        titles are those of the titles of before. A catalog that is given apart stays as it is.

        Raises
        ------
        DataError
            If the log names no category before the cutoff.
        """
        if self.parts:
            return self._with_parts(lambda name, part: part.with_catalog_before(cutoff))
        rows = self.item_rows
        if rows is None or not (rows[TIMESTAMP] >= cutoff).any():
            return replace(self, log=self.log.align_to(self.catalog))
        rows = rows[rows[TIMESTAMP] < cutoff]
        if not len(rows):
            raise DataError(f"the log names no item before {cutoff}. Choose a later cutoff.")
        return self._with_item_rows(rows, cutoff)

    def with_categories_before(self, cutoff: np.datetime64) -> Dataset:
        """Give the dataset with the categories alone that its log names before a cutoff.

        For comparisons with what happened: of an item that the log names by then, only that is
        known; items that come later stay if all their categories are known, so that events of them
        count; where categories are clusters of titles, they get the one that is nearest to their
        first title. A catalog that is given apart stays as it is. Raises as `with_catalog_before`
        does.
        """
        if self.parts:
            return self._with_parts(lambda name, part: part.with_categories_before(cutoff))
        known = self.with_catalog_before(cutoff)
        rows = self.item_rows
        if rows is None or known.item_rows is None or len(known.item_rows) == len(rows):
            return known
        is_later = ~rows[ITEM_ID].isin(known.item_rows[ITEM_ID])
        if self.title_categories is not None:  # of what it is called when it is first sold
            is_later &= rows[TIMESTAMP] == rows.groupby(ITEM_ID)[TIMESTAMP].transform("min")
        together = self._with_item_rows(rows[(rows[TIMESTAMP] < cutoff) | is_later], cutoff)
        later = set(together.catalog.categories) - set(known.catalog.categories)
        return together.without_categories(later)

    def _with_item_rows(self, rows: pd.DataFrame, cutoff: np.datetime64) -> Dataset:
        """Give the dataset with the catalog of these rows, as it was known before a cutoff.

        Excluded categories are left out; of titles the rows have no excluded items, and clusters
        that are found anew are others than those that were excluded.
        """
        rows = rows.reset_index(drop=True)
        if self.title_categories is not None:
            found, about = catalog_of_titles(rows, self.title_categories, cutoff)
            return replace(self._with_catalog(found, rows), title_categories=about)
        catalog = catalog_of_rows(rows, self.separator)
        return self._with_catalog(drop_categories(catalog, self.excluded, self.name), rows)

    def _with_catalog(self, catalog: Catalog, rows: pd.DataFrame | None) -> Dataset:
        """Give the dataset with another catalog and the rows it comes from, all aligned with it."""
        catalog = catalog.with_features_of(self.catalog)
        return replace(
            self,
            catalog=catalog,
            log=self.log.align_to(self.catalog).align_to(catalog),
            item_rows=rows,
            population=self.population and self.population.align(self.catalog, catalog),
            impressions=self.impressions and self.impressions.align_to(catalog),
        )

    def _with_parts(self, change: Callable[[str, Dataset], Dataset]) -> Dataset:
        """Give the joined dataset with the catalog of its changed parts."""
        parts = {}
        for name, part in self.parts.items():
            with joining.name_platform(name):
                parts[name] = change(name, part)
        if all(parts[name].catalog is part.catalog for name, part in self.parts.items()):
            return replace(self, log=self.log.align_to(self.catalog), parts=parts)
        catalog = joining.join_catalogs({name: part.catalog for name, part in parts.items()})
        return replace(self._with_catalog(catalog, None), parts=parts)

    @property
    def platforms(self) -> joining.Platforms:
        """Which items and categories are of which platform, where several were joined."""
        return joining.Platforms.of({name: part.catalog for name, part in self.parts.items()})

    def platform(self, name: str) -> Dataset:
        """Give the dataset of one platform with its own ids; DataError if it has no event here."""
        own = joining.log_of_platform(self.log.align_to(self.catalog), self.platforms, name)
        item_ids = self.parts[name].catalog.item_ids
        return replace(self.parts[name], log=replace(own, item_ids=item_ids))

    @property
    def everybody(self) -> Population:
        """What everybody took: the population that is given, or that of the log."""
        return self.population or Population.of(self.log.align_to(self.catalog))

    def histories(self, cutoff: np.datetime64, users: Sequence[int] | None = None) -> list[History]:
        """Give the histories of user indices (default: everybody) before a cutoff."""
        length = replace(PeriodLength.parse(self.period), anchor=self.anchor)
        rest = users, self.verb, self.population
        return make_histories(self.log, self.catalog, length, cutoff, *rest)

    def without_categories(self, names: Collection[str]) -> Dataset:
        """Give the dataset without some categories and all their items.

        Raises
        ------
        DataError
            If a name is no category, or nothing is left.
        """
        if unknown := sorted(set(names) - set(self.catalog.categories)):
            raise DataError(f"{unknown[0]!r} is no category of {self.name}.")
        if self.parts:
            return self._with_parts(
                lambda name, p: p.without_categories(joining.own_names(name, names))
            )
        catalog = drop_categories(self.catalog, names, self.name)
        rows = self.item_rows
        if rows is not None:
            rows = rows[rows[ITEM_ID].isin(catalog.item_ids)].reset_index(drop=True)
        return replace(self._with_catalog(catalog, rows), excluded=self.excluded | set(names))

    def new_user_history(
        self,
        frame: Any,
        cutoff: np.datetime64,
        *,
        dates: str | None = None,
        is_clean: bool = False,
        allow_empty: bool = False,
    ) -> History:
        """Give the history of somebody who is not in the log; later events are left out.

        Its log holds this person's events alone, and what everybody took stays the dataset's. What
        was dropped is in the log's report: ``history.log.report``.

        Parameters
        ----------
        frame
            The person's events: columns item_id and timestamp, and user_id (default: `NEW_USER`).
            Events of items that the catalog does not know are dropped.
        dates
            How times are written, see `load_dataset`; None: in the log's order of day and month.
        is_clean
            Whether the rows are those of a log that was cleaned before: each is an event, and those
            of one time are in their order. Otherwise equal rows count once, and events of one time
            are ordered by their items.
        allow_empty
            Whether somebody without an event before the cutoff gets a history of empty periods.

        Raises
        ------
        DataError
            If the frame holds events, yet none of the catalog's items, several people, or one whom
            the log knows; and if it holds no event before the cutoff, unless that is allowed.
        """
        try:
            table = to_pandas(frame).reset_index(drop=True)
            require_columns(table, {ITEM_ID: ITEM_ID, TIMESTAMP: TIMESTAMP})
            if USER_ID not in table:
                table = table.assign(**{USER_ID: NEW_USER})
            if allow_empty and not len(table):
                log = Interactions.empty(self.catalog.item_ids, [NEW_USER])
            else:
                log = events_of_new_user(
                    table, self.log, self.catalog, cutoff, dates, is_clean, allow_empty
                )
        except DataError as error:
            raise DataError(f"the frame of a new user: {error}") from error
        log = replace(log, day_first=self.log.day_first)
        return replace(self, log=log, population=self.everybody).histories(cutoff)[0]
