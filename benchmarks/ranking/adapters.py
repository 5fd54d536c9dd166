"""Which adapters may be used on a ranking split, and what each may have learned from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.harness.engines import AddedAdapter
from benchmarks.ranking.splits import LEAVE_ONE_OUT, RankingSplit, next_period
from llmrec.data.calendar import PeriodLength, to_datetime64
from llmrec.data.history_keys import history_key
from llmrec.data.interactions import Interactions
from llmrec.data.periods import Window
from llmrec.errors import DataError
from llmrec.language.adapters import AdapterMetadata


def adapter_for(split: RankingSplit, folder: Path) -> AddedAdapter:
    """Give an adapter that has seen no test of a split, and the windows that it may have seen.

    Calendar: its cutoff lies before the tests. Events: it learned from the log without validation
    and tests, or, to leave one out, from the one that lacks whole last periods.

    Raises
    ------
    DataError
        If it may have learned from the targets of a test.
    """
    metadata = AdapterMetadata.load(folder)
    logs = {log.fingerprint: log for log in _logs_before_validation(split)}
    unseen = metadata.data_fingerprint in logs
    if unseen and PeriodLength.parse(split.dataset.period).unit != "events":
        tests = next(iter(split.tests.values())).windows
        first = min(window.target.period.start for window in tests)
        unseen = bool(to_datetime64(metadata.cutoff) <= first)
    if not unseen:
        raise DataError(
            f"the adapter learned from {metadata.dataset} ({metadata.data_fingerprint}) up to "
            f"{metadata.cutoff}: for {split.name!r} it may have seen the targets of the tests"
        )
    return AddedAdapter(folder, targets_in(logs[metadata.data_fingerprint]))


def targets_in(log: Interactions) -> Callable[[Window], bool]:
    """Give a function that is true of windows whose target begins in a log, person by person.

    Of a person's events the log has the oldest, and windows may be of a longer one.
    """
    known: dict[str, int] = dict(zip(log.user_ids, np.diff(log.user_offsets).tolist(), strict=True))

    def begins_there(window: Window) -> bool:
        before = history_key(window.history)
        return before.n_events < known.get(before.user_id, 0)

    return begins_there


def _logs_before_validation(split: RankingSplit) -> list[Interactions]:
    splits = [split, next_period(split.dataset)] if split.name == LEAVE_ONE_OUT else [split]
    return [one.validation.log for one in splits]
