"""Who gets a list, and what may be learned from: the same for every ranking model.

`python -m benchmarks.ranking.splits --out FOLDER` writes MovieLens 100K without the targets that
next-period lists are evaluated on, for an adapter that has not seen them.
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
MAX_EARLIER = 4  # earlier stages that a second stage learns from
ItemLists = list[list[int]]  # (n_windows, K) items, best first


@dataclass(frozen=True, eq=False)
class RankingStage:
    """What may be learned from, and the windows to rank for: their histories lie in that log.

    The targets of the windows of ``earlier`` stages, oldest first, may be learned from, too.
    """

    log: Interactions
    windows: list[Window]
    earlier: Sequence[RankingStage] = ()

    @property
    def histories(self) -> list[History]:
        """Histories of the windows."""
        return [window.history for window in self.windows]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the log and of whose histories are ranked for, up to which event."""
        users = "".join(f"{one.user_id} {one.event_ids.stop}\n" for one in self.histories)
        return hashlib.sha256((self.log.fingerprint + users).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class RankingSplit:
    """A way of dividing a log: a stage that settings are chosen on, and tests."""

    name: str
    dataset: Dataset
    repeat: RepeatPolicy
    validation: RankingStage
    tests: dict[str, RankingStage]

    def stage(self, name: str) -> RankingStage:
        """Give validation or a test."""
        return self.validation if name == "validation" else self.tests[name]

    def relevant(self, window: Window) -> IntArray:
        """(n,) items that a list should hold: the target's, or the new ones among them."""
        items = np.unique(window.target.item_idx)
        return items[rankable_items(window.history, self.repeat)[items]]

    def n_items(self, name: str) -> int:
        """Count the items that have been taken before, which a list could hold."""
        return len(np.unique(self.stage(name).log.item_idx))


def best_items(scores: FloatArray, stage: RankingStage, repeat: RepeatPolicy) -> ItemLists:
    """Give each window's K rankable items of largest score; of equals those of smaller index."""
    lists = []
    for row, history in zip(scores, stage.histories, strict=True):
        items = np.flatnonzero(rankable_items(history, repeat))
        order = np.argsort(-row[items], kind="stable")[:K]
        lists.append(items[order].tolist())
    return lists


Sizes = Callable[[Interactions], IntArray]


def leave_one_out(dataset: Dataset) -> RankingSplit:
    """Test on a person's last event, validate on the one before it."""
    return _nested(dataset, LEAVE_ONE_OUT, lambda log: np.ones(log.n_users, np.int64), 1, 1)


def next_period(dataset: Dataset) -> RankingSplit:
    """Test on the last fifth of a person's events, 5 to 20 of them, where 20 are left before it.

    Validation is cut alike from what is left; 10 are left before it.
    """

    def sizes(log: Interactions) -> IntArray:
        counts = np.diff(log.user_offsets)
        return np.clip(np.round(0.2 * counts), 5, 20).astype(np.int64)

    return _nested(dataset, "next period", sizes, 20, 10)


def global_time(dataset: Dataset) -> RankingSplit:
    """Everything after the 90 % quantile of time is the test, after 80 % validation.

    People have five events before.
    """
    log, catalog = dataset.log, dataset.catalog
    quantiles = np.quantile(log.timestamp.astype(np.int64), (0.6, 0.7, 0.8, 0.9))
    times = quantiles.astype(np.int64).astype("datetime64[ms]")
    stages = []
    for start, stop in zip(times, [*times[1:], log.timestamp.max() + MILLISECOND], strict=True):
        stages.append(_after(truncate_log(log, stop), catalog, dataset.period, start))
    *_, validation, test = _with_earlier(stages)
    return RankingSplit("global time", dataset, "exclude", validation, {"test": test})


def next_weeks(dataset: Dataset, repeat: RepeatPolicy) -> RankingSplit:
    """Take the periods of `split_windows`, each with the log as it was before it."""
    log, catalog, parts = dataset.log, dataset.catalog, split_windows(dataset)
    boundaries = period_boundaries(log, dataset.period)
    earlier = [
        make_windows(log, catalog, dataset.period, cutoff, min_periods=3, min_target_events=5)
        for cutoff in boundaries[-4 - MAX_EARLIER : -4]
    ]
    stages = [
        RankingStage(truncate_log(log, windows[0].history.cutoff), _with_own_log(windows, dataset))
        for windows in (*filter(None, earlier), *parts.values())
    ]
    validation, *tests = _with_earlier(stages)[-len(parts) :]
    rule = "repeat allowed" if repeat == "allow" else "explore only"
    by_name = dict(zip(list(parts)[1:], tests, strict=True))
    return RankingSplit(f"next 28 days, {rule}", dataset, repeat, validation, by_name)


def _with_own_log(windows: list[Window], dataset: Dataset) -> list[Window]:
    """Give the windows with histories in the log before them: nothing later can be looked up."""
    log = truncate_log(dataset.log, windows[0].history.cutoff).align_to(dataset.catalog)
    return [Window(history_in(window.history, log), window.target) for window in windows]


def history_in(history: History, log: Interactions) -> History:
    """Give the same history as positions in another log, which holds these events of the person."""
    user = log.user_index(history.user_id)
    offsets = history.offsets - history.offsets[0] + log.user_offsets[user]
    return replace(history, log=log, user_idx=user, offsets=offsets)


def _nested(
    dataset: Dataset, name: str, sizes: Sizes, min_events: int, min_events_before: int
) -> RankingSplit:
    """Cut tests off the newest events, validation off what is left, earlier stages before that."""
    log, catalog = dataset.log.align_to(dataset.catalog), dataset.catalog
    stages = [_cut(log, catalog, dataset.period, sizes, min_events)]
    while len(stages) < 2 + MAX_EARLIER and _leaves_some(stages[-1].log, sizes):
        stages.append(_cut(stages[-1].log, catalog, dataset.period, sizes, min_events_before))
    users = {window.history.user_id for window in stages[0].windows}
    shared = [window for window in stages[1].windows if window.history.user_id in users]
    stages[1] = replace(stages[1], windows=shared)
    validation, test = _with_earlier(stages[::-1])[-2:]
    return RankingSplit(name, dataset, "exclude", validation, {"test": test})


def _leaves_some(log: Interactions, sizes: Sizes) -> bool:
    return bool((np.diff(log.user_offsets) > sizes(log)).any())


def _with_earlier(stages: Sequence[RankingStage]) -> list[RankingStage]:
    """Give each of the stages, oldest first, those before it, `MAX_EARLIER` at most."""
    return [
        replace(stage, earlier=stages[max(0, place - MAX_EARLIER) : place])
        for place, stage in enumerate(stages)
    ]


def _cut(
    log: Interactions, catalog: Catalog, period: str, sizes: Sizes, min_events: int
) -> RankingStage:
    """Cut the newest events off everybody; rank for those with ``min_events`` left."""
    starts = np.maximum(log.user_offsets[1:] - sizes(log), log.user_offsets[:-1])
    position = np.arange(len(log))
    before = log.drop_events({"later": position >= starts[log.user_idx]}).align_to(catalog)
    return RankingStage(before, _windows(log, before, catalog, period, starts, min_events))


def _after(log: Interactions, catalog: Catalog, period: str, cutoff: np.datetime64) -> RankingStage:
    """Cut everything from a time on; rank for those with five events before it."""
    log = log.align_to(catalog)
    before = truncate_log(log, cutoff).align_to(catalog)
    late = log.timestamp >= cutoff
    n_late = np.bincount(log.user_idx[late], minlength=log.n_users)
    starts = log.user_offsets[1:] - n_late
    return RankingStage(before, _windows(log, before, catalog, period, starts, 5))


def _windows(
    log: Interactions,
    before: Interactions,
    catalog: Catalog,
    period: str,
    starts: IntArray,
    min_events: int,
) -> list[Window]:
    """Cut each person's events at a position; the history lies in the log without what follows."""
    histories, windows = make_histories(before, catalog, period), []
    stops = log.user_offsets[1:]
    for user, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
        if stop == start or start - log.user_offsets[user] < min_events:
            continue
        span = Period(log.timestamp[start], log.timestamp[stop - 1] + MILLISECOND)
        history = histories[before.user_index(str(log.user_ids[user]))]
        target = Target(log, catalog, start, stop, span)
        windows.append(Window(_ending_at(history, span.start), target))
    return windows


def _ending_at(history: History, cutoff: np.datetime64) -> History:
    """Let a history in periods of events end at a cutoff; its log says what is in it."""
    bounds = np.append(np.minimum(history.bounds[:-1], cutoff), cutoff)
    return replace(history, bounds=bounds, cutoff=cutoff)


def main() -> None:
    """Write the log that a ranking adapter may learn from, in the format of its files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    split, source = next_period(load_dataset("ml-100k")), log_folder("ml-100k")
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "ml-100k.item", out)
    lines = (source / "ml-100k.inter").read_text(encoding="utf-8").splitlines(keepends=True)
    rows = np.sort(split.validation.log.source_row)
    text = "".join([lines[0], *(lines[1 + row] for row in rows)])
    (out / "ml-100k.inter").write_text(text, encoding="utf-8")
    print(f"{len(rows):,} of {len(lines) - 1:,} events")


if __name__ == "__main__":
    main()
