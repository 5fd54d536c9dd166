"""A language model is read for those people alone for whom a fit has shown that it helps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.data.periods import History
from llmrec.errors import DataError
from llmrec.forecast import Forecast
from llmrec.forecasters.calibration import Calibration, fit_calibration
from llmrec.forecasters.selective import (
    MIN_GROUP_WINDOWS,
    GainGroup,
    SelectiveForecaster,
    group_gains,
)
from tests.training.tiny_timelines import PRIOR, make_dataset

DATA = make_dataset()
HISTORIES = DATA.histories(DATA.log.timestamp.max())


class RecordingForecaster:
    """Gives what the prior gives, and records whom it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        self.asked += [history.user_id for history in histories]
        return PRIOR.forecast(histories)


def test_gains_are_found_by_the_number_of_past_events() -> None:
    rng = np.random.default_rng(0)
    n_events = np.repeat([10, 100, 1_000], 100)
    gains = np.where(n_events < 100, 0.05, 0.0) + rng.normal(scale=0.01, size=300)
    groups = group_gains(n_events, gains)
    assert [one.is_read for one in groups if one.min_events < 100] == [True]
    assert not any(one.gain[1] > 0.02 for one in groups if one.min_events >= 100)
    assert sum(one.n for one in groups) == 300


@given(
    n_events=st.lists(st.integers(0, 30), min_size=1, max_size=400),
    seed=st.integers(0, 5),
)
def test_every_window_is_in_one_group_and_every_history_too(n_events: list[int], seed: int) -> None:
    counts = np.array(n_events)
    gains = np.random.default_rng(seed).normal(size=len(counts))
    groups = group_gains(counts, gains)
    assert groups[0].min_events == 0
    assert all(a.min_events < b.min_events for a, b in pairwise(groups))
    assert sum(one.n for one in groups) == len(counts)
    assert all(one.n for one in groups)
    mean = sum(one.n * one.gain[0] for one in groups) / len(counts)
    np.testing.assert_allclose(mean, gains.mean(), atol=1e-12)
    if len(counts) < 2 * MIN_GROUP_WINDOWS:
        assert len(groups) == 1


def test_only_people_whom_it_helps_are_read_and_the_source_of_the_others_says_why() -> None:
    middle = sorted(history.n_events for history in HISTORIES)[len(HISTORIES) // 2]
    helps = GainGroup(0, (0.02, 0.01, 0.03), 100)
    not_shown = GainGroup(middle, (0.001, -0.002, 0.004), 120)
    model = RecordingForecaster()
    found = SelectiveForecaster(model, PRIOR, [helps, not_shown]).forecast(HISTORIES)
    few = [history.user_id for history in HISTORIES if history.n_events < middle]
    assert model.asked == few
    assert 0 < len(few) < len(HISTORIES)
    plain = PRIOR.forecast(HISTORIES)
    for history, one, expected in zip(HISTORIES, found, plain, strict=True):
        np.testing.assert_array_equal(one.category_weights, expected.category_weights)
        is_read = history.user_id in few
        assert ("was not read" in one.source.why) != is_read
        if not is_read:
            assert f"for 120 people with about as many past events, from {middle}" in one.source.why
            assert "it gained +0.0010 nats an event (-0.0020 to +0.0040)" in one.source.why


def test_nobody_asked_about_is_nobody_forecast() -> None:
    groups = [GainGroup(0, (0.0, -1.0, 1.0), 1)]
    assert SelectiveForecaster(RecordingForecaster(), PRIOR, groups).forecast([]) == []


def test_a_calibration_keeps_its_groups_and_one_without_any_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    n, n_categories = 200, 4
    targets = rng.multinomial(20, [0.4, 0.3, 0.2, 0.1], size=n).astype(float)
    scores = np.log(targets + 1)
    prior = np.full((n, n_categories), 0.25)
    n_events = rng.integers(1, 50, n)
    fitted = fit_calibration(prior, scores, targets, n_events=n_events)
    assert len(fitted.groups) == 4
    assert all(one.is_read for one in fitted.groups)
    kept = Calibration(**{**fitted.__dict__, "categories": ("a", "b", "c", "d")})
    kept.save(tmp_path / "calibration.json")
    again = Calibration.load(tmp_path / "calibration.json", kept.categories)
    assert again.groups == fitted.groups
    without = (tmp_path / "calibration.json").read_text().replace('"groups"', '"groops"')
    (tmp_path / "calibration.json").write_text(without)
    with pytest.raises(DataError, match="groops"):
        Calibration.load(tmp_path / "calibration.json", kept.categories)
    assert fit_calibration(prior, scores, targets).groups == ()


def test_what_titles_gave_before_counts_as_gain() -> None:
    rng = np.random.default_rng(2)
    n = 120
    targets = rng.multinomial(20, [0.5, 0.5], size=n).astype(float)
    scores = rng.normal(size=(n, 2)) * 1e-3  # of no use
    prior = np.full((n, 2), 0.5)
    before = np.full(n, 0.1) + rng.normal(scale=1e-3, size=n)
    found = fit_calibration(prior, scores, targets, n_events=np.arange(n), gain_before=before)
    assert not found.is_trusted
    assert all(one.is_read for one in found.groups)
