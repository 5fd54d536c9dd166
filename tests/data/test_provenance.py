from __future__ import annotations

import json

import numpy as np
import pytest

from llmrec.data.provenance import TrainingSpan
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from tests.worlds import catalog, log

ITEMS = catalog()
LOG = log(n_users=6).align_to(ITEMS)
WEEK = np.timedelta64(7, "D")
START = LOG.timestamp.min()


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_a_fit_saw_its_own_windows_and_none_after_them(period: str) -> None:
    if period == "7D":
        before, after = (make_windows(LOG, ITEMS, period, START + n * WEEK) for n in (3, 4))
    else:
        before, after = (make_windows(LOG, ITEMS, period, back=back) for back in (1, 0))
    fitted = TrainingSpan.of_windows(before)
    assert all(fitted.covers(window) for window in before)
    assert not any(fitted.covers(window) for window in after)


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_it_outlives_json(period: str) -> None:
    windows = make_windows(LOG, ITEMS, period)
    fitted = TrainingSpan.of_windows(windows)
    again = TrainingSpan.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again.to_dict() == fitted.to_dict()
    assert all(again.covers(window) for window in windows)


def test_of_another_log_only_the_time_counts() -> None:
    fitted = TrainingSpan.of_windows(make_windows(LOG, ITEMS, "10 events", back=1))
    other = log(n_users=6, seed=1).align_to(ITEMS)
    for window in make_windows(other, ITEMS, "10 events"):
        assert fitted.covers(window) == (fitted.before > window.history.cutoff)


def test_nothing_fits_nothing() -> None:
    with pytest.raises(DataError, match="no window"):
        TrainingSpan.of_windows([], [])


def test_what_was_seen_together_is_the_most_of_both() -> None:
    early, late = (
        TrainingSpan.of_windows(make_windows(LOG, ITEMS, "10 events", back=back)) for back in (1, 0)
    )
    windows = make_windows(LOG, ITEMS, "10 events")
    assert not any(early.covers(window) for window in windows)
    assert all(early.union(None, late).covers(window) for window in windows)
    weeks = [
        TrainingSpan.of_windows(make_windows(LOG, ITEMS, "7D", START + n * WEEK)) for n in (3, 4)
    ]
    assert weeks[0].union(weeks[1]).before == weeks[1].union(weeks[0]).before == weeks[1].before


def test_a_window_cut_at_one_time_for_all_is_compared_by_time() -> None:
    fitted = TrainingSpan.of_windows(make_windows(LOG, ITEMS, "10 events")[:3])
    for window in make_windows(LOG, ITEMS, "10 events", START + 3 * WEEK):
        if window.history.cutoff != window.target.period.start:
            assert fitted.covers(window) == (fitted.before > window.history.cutoff)


def test_people_who_come_after_the_cutoff_have_no_part_in_a_fit() -> None:
    known, cutoff = LOG.user_ids[3], START + 3 * WEEK
    is_late = (LOG.user_idx == 3) & (LOG.timestamp < cutoff)
    later = LOG.drop_events({"too early": is_late})
    span, histories = TrainingSpan.of_log(later, ITEMS, cutoff)
    assert known in later.user_ids
    assert [history.user_id for history in histories] == [*LOG.user_ids.delete(3)]
    assert known not in span.n_events
