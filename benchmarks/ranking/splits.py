"""Who is asked for a list, and what may be learned from: the same for every ranking model.

`python -m benchmarks.ranking.splits --out FOLDER` writes MovieLens 100K without anything that a
next-period list is judged by, for an adapter that has not seen it.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from llmrec.data.calendar import MILLISECOND, Period, period_boundaries
from llmrec.data.catalog import Catalog
from llmrec.data.dataset import Dataset
from llmrec.data.embedded import log_folder
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, Target, Window, make_histories, truncate_log
from llmrec.data.readers import load_dataset
from llmrec.data.splits import split_windows
from llmrec.data.windows import make_windows
from llmrec.ranking.blend import rankable_items
from llmrec.types import FloatArray, IntArray, RepeatPolicy

K = 10
LEAVE_ONE_OUT = "leave one out"
LESSONS = 4  # earlier stages that a second stage learns from, at most
Lists = list[list[int]]  # (n_windows, K) items, best first


@dataclass(frozen=True, eq=False)
class Stage:
    """What may be learned from, and the windows to rank for: their histories lie in that log.

    ``lessons`` are stages whose windows' targets may be learned from, too, oldest first.
    """

    log: Interactions
    windows: list[Window]
    lessons: Sequence[Stage] = ()

    @property
    def histories(self) -> list[History]:
        """Of the windows."""
        return [window.history for window in self.windows]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the log and of whose histories are asked, up to which event."""
        asked = "".join(f"{one.user_id} {one.event_ids.stop}\n" for one in self.histories)
        return hashlib.sha256((self.log.fingerprint + asked).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Split:
    """A way of dividing a log: what settings are chosen on, and what is reported."""

    name: str
    dataset: Dataset
    repeat: RepeatPolicy
    validation: Stage
    tests: dict[str, Stage]

    def stage(self, name: str) -> Stage:
        """Give validation or a test."""
        return self.validation if name == "validation" else self.tests[name]

    def relevant(self, window: Window) -> IntArray:
        """Items that a list should hold: the target's, or the new ones among them."""
        items = np.unique(window.target.item_idx)
        return items[rankable_items(window.history, self.repeat)[items]]

    def n_items(self, name: str) -> int:
        """How many items have been taken before: what a list could hold."""
        return len(np.unique(self.stage(name).log.item_idx))


def best_items(scores: FloatArray, stage: Stage, repeat: RepeatPolicy) -> Lists:
    """Give each window's K possible items of largest score; of equals those of smaller index."""
    found = []
    for row, history in zip(scores, stage.histories, strict=True):
        items = np.flatnonzero(rankable_items(history, repeat))
        order = np.argsort(-row[items], kind="stable")[:K]
        found.append(items[order].tolist())
    return found


Sizes = Callable[[Interactions], IntArray]


def leave_one_out(dataset: Dataset) -> Split:
    """Test on a person's last event, validate on the one before it."""
    return _nested(dataset, LEAVE_ONE_OUT, lambda log: np.ones(log.n_users, np.int64), 1, 1)


def next_period(dataset: Dataset) -> Split:
    """Test on the last fifth of a person's events, 5 to 20 of them, where 20 are left before it.

    Validation is cut alike from what is left; 10 are left before it.
    """

    def sizes(log: Interactions) -> IntArray:
        counts = np.diff(log.user_offsets)
        return np.clip(np.round(0.2 * counts), 5, 20).astype(np.int64)

    return _nested(dataset, "next period", sizes, 20, 10)


def global_time(dataset: Dataset) -> Split:
    """Everything after the 90 % quantile of time is the test, after 80 % validation.

    People have five events before.
    """
    log, catalog = dataset.log, dataset.catalog
    quantiles = np.quantile(log.timestamp.astype(np.int64), (0.6, 0.7, 0.8, 0.9))
    times = quantiles.astype(np.int64).astype("datetime64[ms]")
    stages = []
    for start, stop in zip(times, [*times[1:], log.timestamp.max() + MILLISECOND], strict=True):
        stages.append(_after(truncate_log(log, stop), catalog, dataset.period, start))
    *_, validation, test = _taught(stages)
    return Split("global time", dataset, "exclude", validation, {"test": test})


def next_weeks(dataset: Dataset, repeat: RepeatPolicy) -> Split:
    """Take the periods of `split_windows`, each with the log as it was before it."""
    log, grid, cut = (
        dataset.log,
        period_boundaries(dataset.log, dataset.period),
        split_windows(dataset),
    )
    taught = [
        make_windows(
            log, dataset.catalog, dataset.period, cutoff, min_periods=3, min_target_events=5
        )
        for cutoff in grid[-4 - LESSONS : -4]
    ]
    stages = [
        Stage(truncate_log(log, windows[0].history.cutoff), _own(windows, dataset))
        for windows in (*taught, *cut.values())
    ]
    validation, *tests = _taught(stages)[-len(cut) :]
    rule = "repeat allowed" if repeat == "allow" else "explore only"
    names = list(cut)[1:]
    return Split(
        f"next 28 days, {rule}", dataset, repeat, validation, dict(zip(names, tests, strict=True))
    )


def _own(windows: list[Window], dataset: Dataset) -> list[Window]:
    """Give the windows with histories in the log before them: nothing later can be looked up."""
    log = truncate_log(dataset.log, windows[0].history.cutoff).align_to(dataset.catalog)
    found = []
    for window in windows:
        old = window.history
        user = log.user_index(old.user_id)
        offsets = old.offsets - old.offsets[0] + log.user_offsets[user]
        history = History(
            log, old.catalog, user, offsets, old.bounds, old.cutoff, old.period_length
        )
        found.append(Window(history, window.target))
    return found


def _nested(dataset: Dataset, name: str, sizes: Sizes, least: int, least_before: int) -> Split:
    log, catalog = dataset.log.align_to(dataset.catalog), dataset.catalog
    stages = [_cut(log, catalog, dataset.period, sizes, least)]
    while len(stages) < 2 + LESSONS and _leaves_some(stages[-1].log, sizes):
        stages.append(_cut(stages[-1].log, catalog, dataset.period, sizes, least_before))
    asked = {window.history.user_id for window in stages[0].windows}
    kept = [window for window in stages[1].windows if window.history.user_id in asked]
    stages[1] = replace(stages[1], windows=kept)
    validation, test = _taught(stages[::-1])[-2:]
    return Split(name, dataset, "exclude", validation, {"test": test})


def _leaves_some(log: Interactions, sizes: Sizes) -> bool:
    return bool((np.diff(log.user_offsets) > sizes(log)).any())


def _taught(stages: Sequence[Stage]) -> list[Stage]:
    """Give each of the stages, oldest first, those before it as lessons, `LESSONS` at most."""
    return [
        replace(stage, lessons=stages[max(0, place - LESSONS) : place])
        for place, stage in enumerate(stages)
    ]


def _cut(log: Interactions, catalog: Catalog, period: str, sizes: Sizes, least: int) -> Stage:
    """Cut the newest events off everybody; people with ``least`` events left are asked."""
    starts = np.maximum(log.user_offsets[1:] - sizes(log), log.user_offsets[:-1])
    position = np.arange(len(log))
    before = log.drop_events({"later": position >= starts[log.user_idx]}).align_to(catalog)
    return Stage(before, _windows(log, before, catalog, period, starts, least))


def _after(log: Interactions, catalog: Catalog, period: str, cutoff: np.datetime64) -> Stage:
    log = log.align_to(catalog)
    before = truncate_log(log, cutoff).align_to(catalog)
    late = log.timestamp >= cutoff
    n_late = np.bincount(log.user_idx[late], minlength=log.n_users)
    starts = log.user_offsets[1:] - n_late
    return Stage(before, _windows(log, before, catalog, period, starts, 5))


def _windows(
    log: Interactions,
    before: Interactions,
    catalog: Catalog,
    period: str,
    starts: IntArray,
    least: int,
) -> list[Window]:
    """Cut each person's events at a position; the history lies in the log without what follows."""
    pasts, found = make_histories(before, catalog, period), []
    stops = log.user_offsets[1:]
    for user, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        if stop == start or start - log.user_offsets[user] < least:
            continue
        span = Period(log.timestamp[start], log.timestamp[stop - 1] + MILLISECOND)
        past = pasts[before.user_index(str(log.user_ids[user]))]
        target = Target(log, catalog, start, stop, span)
        found.append(Window(_ending(past, span.start), target))
    return found


def _ending(past: History, cutoff: np.datetime64) -> History:
    """Let a past in periods of events end at a cutoff; its log, not a time, says what is in it."""
    bounds = np.append(np.minimum(past.bounds[:-1], cutoff), cutoff)
    return replace(past, bounds=bounds, cutoff=cutoff)


def main() -> None:
    """Write the log that a ranking adapter may learn from, in the files it came in."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    split, source = next_period(load_dataset("ml-100k")), log_folder("ml-100k")
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "ml-100k.item", out)
    lines = (source / "ml-100k.inter").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = np.sort(split.validation.log.source_row)
    text = "".join([lines[0], *(lines[1 + row] for row in kept)])
    (out / "ml-100k.inter").write_text(text, encoding="utf-8")
    print(f"{len(kept):,} of {len(lines) - 1:,} events")


if __name__ == "__main__":
    main()
