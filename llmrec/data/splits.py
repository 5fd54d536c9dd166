"""Windows to train, validate and test on, and the log before them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from llmrec.data.calendar import MILLISECOND, PeriodLength, boundaries_up_to, period_boundaries
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window, truncate_log
from llmrec.data.windows import (
    MIN_CALIBRATION_WINDOWS,
    holdout_cutoff,
    make_windows,
    rolling_windows,
)
from llmrec.errors import DataError
from llmrec.types import BoolArray, TimeArray

MIN_TARGET_EVENTS = 5  # with calendar periods


def with_catalog_of_training(dataset: Dataset) -> Dataset:
    """Give the dataset with the items and categories that its log names before the newest period.

    That period stays unseen, and the engine that is made of an adapter is cut there: both know the
    same categories then. A catalog that is given apart stays whole.
    """
    cutoff = holdout_cutoff(dataset.log, dataset.period)
    known = dataset.with_catalog_before(cutoff)
    # Without its events of unknown items the log may end earlier, and the newest period with it.
    if holdout_cutoff(known.log, known.period) != cutoff:
        return with_catalog_of_training(known)
    return known


@dataclass(frozen=True, eq=False)
class EvaluationSplits:
    """Windows to fit and to compare forecasters on, of the categories from before the tests.

    Of a catalog that comes from the log the categories are cut before the tests, see
    `Dataset.with_categories_before`; one that is given apart stays whole. With calendar periods
    they are cut where the first test begins, and the periods are those of the whole log. With
    periods of events people's tests begin at times of their own: they are cut at `holdout_cutoff`,
    so they may hold what came after somebody's earlier test began, and nothing of the later ones.

    Attributes
    ----------
    dataset
        The dataset with these categories.
    grid
        Bounds of the calendar periods of the whole log; None with periods of events.
    """

    dataset: Dataset
    grid: TimeArray | None

    @classmethod
    def of(cls, dataset: Dataset) -> EvaluationSplits:
        """Cut a dataset's catalog before the tests; DataError if the log is too short."""
        if PeriodLength.parse(dataset.period).unit == "events":
            cutoff = holdout_cutoff(dataset.log, dataset.period)
            return cls(dataset.with_categories_before(cutoff), None)
        grid = _evaluation_grid(dataset)
        return cls(dataset.with_categories_before(grid[-3]), grid)

    @cached_property
    def windows(self) -> dict[str, list[Window]]:
        """The windows of `split_windows`."""
        return split_windows(self.dataset, self.grid)

    @cached_property
    def training(self) -> list[Window]:
        """The windows of `training_windows`."""
        return training_windows(self.dataset, self.grid)

    @property
    def tests(self) -> dict[str, list[Window]]:
        """The windows without those of validation."""
        return {split: found for split, found in self.windows.items() if split != "validation"}


def split_windows(dataset: Dataset, grid: TimeArray | None = None) -> dict[str, list[Window]]:
    """Give the windows to tune on ("validation") and to report ("test", ...), by name.

    Calendar periods: targets are the last three complete periods, the first of them for validation;
    a history has three non-empty periods, a target five events. Periods of events: a user's last
    complete period is the test, the one before it validation; a history has two periods at least.
    "Before" then holds person by person: one's validation may follow another's test in time.
    ``grid`` are the bounds of the calendar periods (default: those of the log).
    """
    log, catalog = dataset.log, dataset.catalog
    if PeriodLength.parse(dataset.period).unit == "events":
        return {
            name: make_windows(log, catalog, dataset.period, back=back, min_periods=periods)
            for name, back, periods in (("validation", 1, 1), ("test", 0, 2))
        }
    grid = _evaluation_grid(dataset) if grid is None else grid
    return {
        name: make_windows(
            log,
            catalog,
            dataset.period,
            cutoff,
            min_periods=min(3, len(grid) - 4),
            min_target_events=MIN_TARGET_EVENTS,
        )
        for name, cutoff in zip(("validation", "test 1", "test 2"), grid[-4:-1], strict=True)
    }


def training_windows(dataset: Dataset, grid: TimeArray | None = None) -> list[Window]:
    """Give every window whose target ends before the validation targets begin.

    A person has one at each of their earlier periods; histories have two non-empty periods (one
    with periods of events). ``grid`` as for `split_windows`.
    """
    log, catalog = dataset.log, dataset.catalog
    training: list[Window] = []
    if PeriodLength.parse(dataset.period).unit == "events":
        back = 2
        while windows := make_windows(log, catalog, dataset.period, back=back):
            training += windows
            back += 1
        return training
    grid = period_boundaries(log, dataset.period) if grid is None else grid
    for cutoff in grid[1:-4]:
        training += make_windows(
            log,
            catalog,
            dataset.period,
            cutoff,
            min_periods=2,
            min_target_events=MIN_TARGET_EVENTS,
        )
    return training


def past_windows(dataset: Dataset, horizon: int = 1) -> list[list[Window]]:
    """Give the windows of the last period, of the one before it, and so on back to the first.

    Histories end right before the target, or ``horizon`` - 1 periods earlier.

    Calendar: the last period ends with the log's last event; histories have two non-empty periods
    and targets `MIN_TARGET_EVENTS` events, unless fewer than `MIN_CALIBRATION_WINDOWS` windows of
    the last period do: then one period and one event are enough. Events: each person's last
    complete period, and those before it.
    """
    log, catalog, period = dataset.log.align_to(dataset.catalog), dataset.catalog, dataset.period
    length = PeriodLength.parse(period)
    if length.unit == "events":
        folds: list[list[Window]] = []
        while windows := make_windows(log, catalog, period, back=len(folds), horizon=horizon):
            folds.append(windows)
        return folds
    end = log.timestamp.max() + MILLISECOND
    cutoffs = boundaries_up_to(log.timestamp.min(), length, end)[-1 - horizon : 0 : -1]
    found = list[list[Window]]()
    for min_periods, min_events in ((2, MIN_TARGET_EVENTS), (1, 1)):
        folds = [
            make_windows(
                log,
                catalog,
                period,
                cutoff,
                horizon=horizon,
                min_periods=min_periods,
                min_target_events=min_events,
            )
            for cutoff in cutoffs
        ]
        found = [windows for windows in folds if windows] if folds and folds[0] else []
        if found and len(found[0]) >= MIN_CALIBRATION_WINDOWS:
            break
    return found


def newest_windows(windows: Sequence[Window]) -> list[Window]:
    """Give those of the newest calendar period; with periods of events each person's newest."""
    if windows[0].history.period_length.unit == "events":
        newest = {w.history.user_idx: w for w in sorted(windows, key=lambda w: w.target.start)}
        return list(newest.values())
    cutoff = max(window.history.cutoff for window in windows)
    return [window for window in windows if window.history.cutoff == cutoff]


def other_windows(dataset: Dataset, windows: Sequence[Window]) -> list[Window]:
    """Give the windows of everybody else with a history, of the same calendar period.

    They took less in it than the windows were chosen for, or nothing. None with periods of events,
    of which everybody has as many.

    Parameters
    ----------
    windows
        Of one period, such as the first of `past_windows`.
    """
    if not windows or PeriodLength.parse(dataset.period).unit == "events":
        return []
    log, known = dataset.log.align_to(dataset.catalog), {one.history.user_id for one in windows}
    everybody = make_windows(
        log, dataset.catalog, dataset.period, windows[0].history.cutoff, min_target_events=0
    )
    return [window for window in everybody if window.history.user_id not in known]


def rolling_training_windows(
    dataset: Dataset, *, include_validation: bool = False
) -> list[list[Window]]:
    """Give everybody's windows at the end of every tick (see `rolling_windows`).

    Targets end before the validation targets begin: all of them with calendar periods, those of the
    same person with periods of events. ``include_validation``: before the test targets begin, for a
    model that is fitted again after validation.
    """
    log, catalog = dataset.log.align_to(dataset.catalog), dataset.catalog
    splits = split_windows(dataset)
    if PeriodLength.parse(dataset.period).unit != "events":
        cutoff = period_boundaries(log, dataset.period)[-3 if include_validation else -4]
        return rolling_windows(
            log, catalog, dataset.period, cutoff, min_target_events=MIN_TARGET_EVENTS
        )
    ends = log.user_offsets[1:].copy()
    for windows in [splits["test"]] if include_validation else splits.values():
        users = [window.history.user_idx for window in windows]
        np.minimum.at(ends, users, [window.target.start for window in windows])
    return rolling_windows(log, catalog, dataset.period, ends.tolist())


def split_timelines(
    dataset: Dataset, *, include_validation: bool = False
) -> tuple[list[list[Window]], list[Window]]:
    """Give everybody's windows to train on, at the end of every tick, and the validation windows.

    Neither holds anything after `holdout_cutoff`, nor of the test targets of `split_windows`. With
    ``include_validation`` the validation windows are among those to train on, too.
    """
    cutoff = holdout_cutoff(dataset.log, dataset.period)
    people = [
        [window for window in windows if window.target.period.end <= cutoff]
        for windows in rolling_training_windows(dataset, include_validation=include_validation)
    ]
    held_out = [w for w in split_windows(dataset)["validation"] if w.target.period.end <= cutoff]
    return [windows for windows in people if windows], held_out


def was_trained_on(
    dataset: Dataset, *, include_validation: bool = False
) -> Callable[[Window], bool]:
    """Give a function that is true of windows whose target was trained or validated on.

    It compares a person's id and number of events, so windows may be of a shorter log. ``dataset``
    is whole, and ``include_validation`` as for `split_timelines`.
    """
    people, held_out = split_timelines(dataset, include_validation=include_validation)
    stops: dict[str, int] = {}
    for window in [*held_out, *(window for windows in people for window in windows)]:
        user = window.history.user_id
        stops[user] = max(stops.get(user, 0), _n_events_before(window) + window.target.n_events)
    return lambda window: _n_events_before(window) < stops.get(window.history.user_id, 0)


def sample_windows(windows: Sequence[Window], n: int | None, seed: int = 0) -> list[Window]:
    """Draw n windows at random without replacement, in their order; all of them if n is None."""
    if n is not None and n < 1:
        raise DataError(f"{n} windows cannot be drawn; give 1 or more, or None for all.")
    if n is None or n >= len(windows):
        return list(windows)
    chosen = np.sort(np.random.default_rng(seed).permutation(len(windows))[:n])
    return [windows[row] for row in chosen]


def sample_part(windows: Sequence[Window], part: float, seed: int = 0) -> list[Window]:
    """Draw a part of the windows, in [0, 1], rounded up, as `sample_windows` does."""
    n = min(len(windows), math.ceil(part * len(windows)))
    return sample_windows(windows, n, seed) if n else []


def training_log_for(windows: Sequence[Window]) -> Interactions:
    """Give the log to fit on before an evaluation on windows: nothing that follows a history.

    Where all windows have one cutoff, it ends there. Where periods are counted in events and each
    person has a cutoff of their own, "before" holds person by person, as in `TrainingSpan`: what
    others took later in time stays.
    """
    log, cutoffs = windows[0].history.log, {window.history.cutoff for window in windows}
    if len(cutoffs) == 1:
        return truncate_log(log, cutoffs.pop())
    return log.drop_events({"from the target on": from_targets_on(windows)})


def from_targets_on(windows: Sequence[Window]) -> BoolArray:
    """(n_events,) which events of the windows' log `training_log_for` leaves out."""
    log = windows[0].history.log
    cutoff = min(window.history.cutoff for window in windows)
    if cutoff == max(window.history.cutoff for window in windows):
        return np.asarray(log.timestamp >= cutoff)
    stops = log.user_offsets[1:].copy()
    users = [window.history.user_idx for window in windows]
    np.minimum.at(stops, users, [window.history.event_ids.stop for window in windows])
    return np.asarray(np.arange(len(log)) >= stops[log.user_idx])


def _evaluation_grid(dataset: Dataset) -> TimeArray:
    """Give the bounds of a log's calendar periods; DataError if they are too few for the splits."""
    grid = period_boundaries(dataset.log, dataset.period)
    if len(grid) < 5:
        raise DataError(
            f"{dataset.name} spans {len(grid) - 1} whole periods of {dataset.period}; a history, a "
            "validation and two test periods need 4. Choose a shorter period."
        )
    return grid


def _n_events_before(window: Window) -> int:
    """Give the number of the person's events before the target."""
    history = window.history
    return window.target.start - int(history.log.user_offsets[history.user_idx])
