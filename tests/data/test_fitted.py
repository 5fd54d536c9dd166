from __future__ import annotations

import json

import numpy as np
import pytest

from llmrec.data.provenance import Fitted
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from tests.worlds import catalog, log

ITEMS = catalog()
LOG = log(n_users=6).aligned(ITEMS)
WEEK = np.timedelta64(7, "D")
START = LOG.timestamp.min()


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_a_fit_saw_its_own_windows_and_none_after_them(period: str) -> None:
    if period == "7D":
        before, after = (make_windows(LOG, ITEMS, period, START + n * WEEK) for n in (3, 4))
    else:
        before, after = (make_windows(LOG, ITEMS, period, back=back) for back in (1, 0))
    fitted = Fitted.on(before)
    assert all(fitted.saw(window) for window in before)
    assert not any(fitted.saw(window) for window in after)


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_it_outlives_json(period: str) -> None:
    windows = make_windows(LOG, ITEMS, period)
    fitted = Fitted.on(windows)
    again = Fitted.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again.to_dict() == fitted.to_dict()
    assert all(again.saw(window) for window in windows)


def test_of_another_log_only_the_time_counts() -> None:
    fitted = Fitted.on(make_windows(LOG, ITEMS, "10 events", back=1))
    other = log(n_users=6, seed=1).aligned(ITEMS)
    for window in make_windows(other, ITEMS, "10 events"):
        assert fitted.saw(window) == (fitted.before > window.history.cutoff)


def test_nothing_fits_nothing() -> None:
    with pytest.raises(DataError, match="no window"):
        Fitted.on([], [])


def test_what_was_seen_together_is_the_most_of_both() -> None:
    early, late = (Fitted.on(make_windows(LOG, ITEMS, "10 events", back=back)) for back in (1, 0))
    windows = make_windows(LOG, ITEMS, "10 events")
    assert not any(early.saw(window) for window in windows)
    assert all(early.joined(None, late).saw(window) for window in windows)
    weeks = [Fitted.on(make_windows(LOG, ITEMS, "7D", START + n * WEEK)) for n in (3, 4)]
    assert weeks[0].joined(weeks[1]).before == weeks[1].joined(weeks[0]).before == weeks[1].before


def test_a_window_cut_at_one_time_for_all_is_judged_by_time() -> None:
    fitted = Fitted.on(make_windows(LOG, ITEMS, "10 events")[:3])
    for window in make_windows(LOG, ITEMS, "10 events", START + 3 * WEEK):
        if window.history.cutoff != window.target.period.start:
            assert fitted.saw(window) == (fitted.before > window.history.cutoff)
