"""Audits: what is altered, what stays, and how the loss changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmrec.data.calendar import period_boundaries
from llmrec.data.catalog import Catalog
from llmrec.data.periods import History, Window, make_histories
from llmrec.data.synthetic import DriftPattern, make_synthetic_world
from llmrec.data.windows import make_windows
from llmrec.errors import DataError
from llmrec.evaluation.audits import (
    AUDIT_LENGTHS,
    AUDITS,
    anonymize_titles,
    audit,
    rename_categories,
    shuffle_events,
    truncate_histories,
)
from llmrec.forecast import Forecast, Forecaster, Source
from llmrec.forecasters.counting import DecayedDirichlet

COUNTING: Mapping[str, Forecaster] = {
    "decayed": DecayedDirichlet(0.5, 10.0),
    "mean": DecayedDirichlet(1.0, 10.0, "all"),
}


def counting(_: Catalog) -> Mapping[str, Forecaster]:
    return COUNTING


@cache
def world_of(pattern: DriftPattern, period: str = "28D") -> list[Window]:
    dataset = make_synthetic_world(80, 8, 12, (pattern,), seed=1).dataset
    return make_windows(dataset.log, dataset.catalog, period)


def weights_of(windows: Sequence[Window]) -> np.ndarray:
    return np.stack(
        [DecayedDirichlet(0.5, 10.0, "all").category_weights([w.history])[0] for w in windows]
    )


def column(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    return table[table["metric"] == metric].set_index("model")


class ByCategoryName:
    """Forecasts fixed shares by category name, whatever the history."""

    def __init__(self, catalog: Catalog, shares: Mapping[str, float]) -> None:
        found = np.array([shares.get(category, 1.0) for category in catalog.categories])
        self.weights = found / found.sum()

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        source = Source("ByCategoryName", "counting")
        return [Forecast(self.weights, 10.0, "", (), source) for _ in histories]


@pytest.mark.parametrize("period", ["28D", "10 events"])
def test_a_shuffled_history_has_the_same_items_and_as_many_events_in_each_period(
    period: str,
) -> None:
    windows = world_of("drifting", period)
    log = windows[0].history.log
    items, fingerprint = log.item_idx.copy(), log.fingerprint
    shuffled = shuffle_events(windows, seed=3)
    for old, new in zip(windows, shuffled, strict=True):
        assert (new.history.item_idx != old.history.item_idx).mean() > 0.3
        assert Counter(new.history.item_idx.tolist()) == Counter(old.history.item_idx.tolist())
        assert new.history.offsets.tolist() == old.history.offsets.tolist()
        assert new.history.bounds.tolist() == old.history.bounds.tolist()
        assert new.target.item_idx.tolist() == old.target.item_idx.tolist()
    np.testing.assert_array_equal(log.item_idx, items)
    new = shuffled[0].history.log
    assert new.fingerprint != fingerprint == log.fingerprint
    assert (new.timestamp == log.timestamp).all()
    assert (new.user_offsets == log.user_offsets).all()


def test_a_rating_stays_with_its_item() -> None:
    windows = world_of("stable")
    rated = replace(windows[0].history.log, rating=windows[0].history.log.item_idx.astype(float))
    (shuffled, *_) = shuffle_events(
        [replace(w, history=replace(w.history, log=rated)) for w in windows]
    )
    assert (shuffled.history.log.rating == shuffled.history.log.item_idx).all()


def test_events_after_the_cutoffs_are_not_shuffled() -> None:
    dataset = make_synthetic_world(20, 8, 12, seed=1).dataset
    cutoff = period_boundaries(dataset.log, "28D")[-4]
    windows = make_windows(dataset.log, dataset.catalog, "28D", cutoff)
    later = dataset.log.timestamp >= cutoff
    shuffled = shuffle_events(windows)[0].history.log
    assert (shuffled.item_idx[later] == dataset.log.item_idx[later]).all()
    assert (shuffled.item_idx[~later] != dataset.log.item_idx[~later]).any()


def test_other_users_do_not_change_a_users_shuffle() -> None:
    windows = world_of("stable")
    alone = shuffle_events(windows[5:6], seed=2)[0].history.item_idx
    assert (alone == shuffle_events(windows[::-1], seed=2)[-6].history.item_idx).all()
    assert (alone != shuffle_events(windows, seed=3)[5].history.item_idx).any()


def test_two_windows_of_a_user_cannot_be_shuffled_together() -> None:
    windows = world_of("stable")
    with pytest.raises(DataError, match="81 windows of 80 users"):
        shuffle_events([*windows, windows[0]])


def test_order_changes_nothing_for_the_mean_and_something_for_decayed_counts() -> None:
    change = column(audit("order", counting, world_of("drifting")), "log_loss_change")
    assert abs(change.loc["mean", ["value", "low", "high"]]).max() < 1e-12
    assert change.loc["decayed", "low"] > 0


@pytest.mark.parametrize("kind", ["names", "titles"])
def test_names_and_titles_change_nothing_for_counting(kind: str) -> None:
    change = column(audit(kind, counting, world_of("drifting")), "log_loss_change")
    assert (change[["value", "low", "high"]] == 0).all(axis=None)


def test_a_forecaster_that_depends_on_names_is_found() -> None:
    windows = world_of("stable")
    taken = np.sum([window.target.category_counts + 1 for window in windows], axis=0)
    shares = dict(zip(windows[0].history.catalog.categories, taken.tolist(), strict=True))
    table = audit("names", lambda catalog: {"it": ByCategoryName(catalog, shares)}, windows)
    assert column(table, "log_loss_change").loc["it", "low"] > 0
    assert column(table, "log_loss_after").loc["it", "value"] == pytest.approx(np.log(16))
    before, after = (column(table, f"log_loss_{when}")["value"] for when in ("before", "after"))
    pd.testing.assert_series_equal(
        column(table, "log_loss_change")["value"], after - before, check_names=False
    )


def test_new_names_leave_the_order_of_categories_and_the_original_alone() -> None:
    windows = world_of("stable")
    old = windows[0].history.catalog
    found = rename_categories(windows, {"Coffee": "Tea", "Yoga": "Coffee"})
    new = found[0].history.catalog
    changes = {a: b for a, b in zip(old.categories, new.categories, strict=True) if a != b}
    assert changes == {"Coffee": "Tea", "Yoga": "Coffee"}
    assert all(w.history.catalog is new and w.target.catalog is new for w in found)
    assert new.item_ids is old.item_ids  # the log still points into it
    groups = rename_categories(windows, seed=4)[0].history.catalog.categories
    assert sorted(groups) == [f"group {number:02d}" for number in range(1, 17)]
    assert list(groups) != sorted(groups)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"Tea": "Coffee"}, "'Tea' is no category"),
        ({"Yoga": "Coffee"}, "'Coffee' is not one"),
        ({"Yoga": " \u200b"}, "'' is not one"),
    ],
)
def test_invalid_names_are_refused(names: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rename_categories(world_of("stable"), names)


def test_anonymous_items_have_a_number_each() -> None:
    catalog = anonymize_titles(world_of("stable"))[0].history.catalog
    assert sorted(catalog.titles) == [f"item {n:04d}" for n in range(1, catalog.n_items + 1)]
    assert catalog.categories == world_of("stable")[0].history.catalog.categories


@given(n=st.integers(0, 130), period=st.sampled_from(["28D", "10 events"]))
def test_truncation_keeps_the_newest_events_and_their_periods(n: int, period: str) -> None:
    windows = world_of("drifting", period)[:5]
    for old, new in zip(windows, truncate_histories(windows, n), strict=True):
        n_left = min(n, old.history.n_events)
        assert new.history.event_ids == old.history.event_ids[old.history.n_events - n_left :]
        assert len(new.history.bounds) == len(new.history.offsets)
        ages = range(1, min(old.history.n_periods, new.history.n_periods) + 1)
        most = np.array([np.diff(old.history.offsets)[-age] for age in ages])
        expected = np.diff(np.concatenate(([0], np.minimum(most.cumsum(), n))))
        assert [np.diff(new.history.offsets)[-age] for age in ages] == expected.tolist()
        assert new.target is old.target


@pytest.mark.parametrize("period", ["28D", "10 events"])
def test_truncation_to_all_events_changes_nothing(period: str) -> None:
    windows = world_of("drifting", period)
    same = truncate_histories(windows, max(window.history.n_events for window in windows))
    for old, new in zip(windows, same, strict=True):
        assert new.history.offsets.tolist() == old.history.offsets.tolist()
        assert new.history.bounds.tolist() == old.history.bounds.tolist()
    assert (weights_of(windows) == weights_of(same)).all()


@pytest.mark.parametrize("period", ["28D", "10 events"])
def test_truncation_to_nothing_is_a_user_without_events(period: str) -> None:
    windows = world_of("drifting", period)[:5]
    log, catalog = windows[0].history.log, windows[0].history.catalog
    for window, cold in zip(windows, truncate_histories(windows, 0), strict=True):
        # Somebody who is new at the cutoff: the user's own log starts with the target.
        first = log.user_offsets[window.history.user_idx]
        past = np.isin(np.arange(len(log)), np.arange(first, window.history.offsets[-1]))
        others = log.drop_events({"before the cutoff": past})
        user = others.user_index(window.history.user_id)
        (new,) = make_histories(others, catalog, period, window.history.cutoff, [user])
        # The others' events are those of the whole log, as they are for a truncated history.
        new = replace(new, log=log, offsets=new.offsets - new.offsets[0] + first)
        assert new.n_events == cold.history.n_events == 0
        assert new.bounds.tolist() == cold.history.bounds.tolist()[-len(new.bounds) :]
        model = DecayedDirichlet(0.5, 10.0, "all")
        np.testing.assert_array_equal(*(model.category_weights([h]) for h in (new, cold.history)))


def test_a_negative_number_of_events_is_refused() -> None:
    with pytest.raises(DataError, match="n=-1"):
        truncate_histories(world_of("stable"), -1)


def test_the_loss_falls_with_the_length_of_a_stable_history() -> None:
    windows = world_of("stable")
    table = audit("length", counting, windows, dataset="synthetic", split="test")
    longest = max(window.history.n_events for window in windows)
    for model in COUNTING:
        curve = table[(table["metric"] == "log_loss") & (table["model"] == model)]
        assert curve["events"].tolist() == [*AUDIT_LENGTHS, longest]
    losses = curve["value"].to_numpy()  # of the mean: it forgets nothing
    assert (np.diff(losses) < 0.01).all()
    assert losses[0] - losses[-1] > 0.5
    assert (np.diff(losses)[:6] < 0).all()
    change = table[(table["metric"] == "log_loss_change") & (table["events"] == longest)]
    assert (change[["value", "low", "high"]] == 0).all(axis=None)


@pytest.mark.parametrize("kind", AUDITS)
def test_the_same_seed_gives_the_same_table(kind: str) -> None:
    windows = world_of("drifting", "10 events")[:30]
    once, again = (audit(kind, counting, windows, dataset="d", split="s", seed=5) for _ in range(2))
    pd.testing.assert_frame_equal(once, again)
    assert once.columns.tolist()[:4] == ["dataset", "split", "audit", "model"]
    assert set(once["audit"]) == {kind}
    assert (once["n"] == 30).all()


def test_a_forecaster_that_has_seen_the_targets_is_refused() -> None:
    windows = world_of("stable")
    seen = DecayedDirichlet().fit(windows, (0.9,))
    for kind in AUDITS:
        with pytest.raises(DataError, match="seen was fitted on events up to"):
            audit(kind, lambda _: {"seen": seen}, windows)


def test_an_unknown_audit_and_no_window_are_refused() -> None:
    with pytest.raises(DataError, match="no audit is called 'smell'; choose from order, names"):
        audit("smell", counting, world_of("stable"))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no window to audit on"):
        audit("order", counting, [])
