from __future__ import annotations

import numpy as np
import pytest

from benchmarks.explanations.came_true import Outcomes, said_rows

KEYS = {"dataset": "a log", "split": "test", "seeds": [0]}


def test_the_error_is_the_mean_gap_of_the_bins_and_the_worst_that_of_a_large_one() -> None:
    said = np.array([0.25] * 300 + [0.75] * 100)
    true = np.array([True] * 90 + [False] * 210 + [True] * 100)
    rows = {(r["model"], r["metric"]): r for r in Outcomes(said, true).rows(KEYS, "again")}
    assert rows["again", "came_true_error"]["value"] == pytest.approx(0.75 * 0.05 + 0.25 * 0.25)
    assert rows["again", "came_true_worst"]["value"] == pytest.approx(0.05)
    assert rows["again 0.2 to 0.3", "came_true"]["value"] == pytest.approx(0.3)
    assert rows["again 0.7 to 0.8", "said"]["n"] == 100


def test_a_certain_probability_is_in_the_last_bin_and_nothing_has_no_rows() -> None:
    ((label, _),) = Outcomes(np.ones(2), np.ones(2, dtype=bool)).bins()
    assert label == "0.9 to 1.0"
    assert not list(Outcomes(np.empty(0), np.empty(0, dtype=bool)).rows(KEYS, "new"))


def test_who_is_told_nothing_counts_among_the_people() -> None:
    rows = {(r["model"], r["metric"]): r for r in said_rows(KEYS, [[("again", 0.8, True)], []])}
    assert rows["said", "statements"]["value"] == 0.5
    assert rows["said", "median_likely_statements"]["value"] == 0.5
    assert rows["said: again", "came_true"]["n"] == 1
