"""Fits of an engine by effort: small logs, members that fail, and fits that were killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec import DataError, Dataset, InterestEngine
from llmrec.data.catalog import Catalog
from llmrec.data.readers import read_table
from llmrec.data.splits import past_windows
from llmrec.engine_figures import ListInfo
from llmrec.engine_fit import FittedEngine, fit_engine
from llmrec.engine_members import MemberFit
from llmrec.errors import MissingExtraError, TrainingError
from llmrec.fit_store import FitStore
from llmrec.forecast import Forecaster
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.pretrained_forecaster import PretrainedForecaster
from llmrec.ranking.selection import TREES
from tests.worlds import START, catalog, log

NOT_NEEDED = ("CategoryEASE", "CategoryMarkov", "NeighbouringUsers", "RidgeAutoregression", TREES)


def world(n_users: int = 60, n_periods: int = 8) -> Dataset:
    items = catalog()
    events = log(n_users, n_periods).align_to(items)
    return Dataset("world", events, items, "7D", "items", "person", "allow")


def table(n_users: int, n_items: int, n_categories: int, n_days: int = 70) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 40 * n_users
    items = rng.integers(n_items, size=n)
    times = START + rng.choice(n_days * 24 * 3600, n, replace=False).astype("timedelta64[s]")
    return pd.DataFrame(
        {
            "user_id": [f"u{row % n_users:03d}" for row in range(n)],
            "item_id": [f"i{item:03d}" for item in items],
            "timestamp": times,
            "title": [f"Title {item}" for item in items],
            "categories": [f"C{item % n_categories}" for item in items],
        }
    )


def members(fitted: FittedEngine, part: str) -> dict[str, dict[str, Any]]:
    return {member["name"]: member for member in fitted.report[part]["members"]}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return world()


@pytest.mark.parametrize("effort", ["standard", "best"])
def test_a_log_too_small_for_an_effort_gets_a_smaller_one_and_says_so(effort: Any) -> None:
    engine = InterestEngine.from_pretrained(data=world(20), model=None)
    with pytest.warns(UserWarning, match=rf"'quick' was fitted: .*effort '{effort}' needs 50"):
        engine.fit(effort)
    assert engine.settings.effort == "quick"
    assert engine.settings.report["asked"] == effort
    assert "20 windows in its last period" in engine.settings.report["reason"]
    assert len(engine.recommend("u001", k=3)) == 3


def test_windows_that_lists_are_not_weighed_by_are_counted_in_the_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = fit_engine(world(40), "quick", without=NOT_NEEDED)
    assert "reason" not in whole.report["list"]
    monkeypatch.setattr("llmrec.engine_members.MAX_QUICK_WINDOWS", 15)
    some = fit_engine(world(40), "quick", without=NOT_NEEDED)
    info = ListInfo.of_report(some.report)
    assert info is not None
    n = len(whole.windows)
    assert f"15 windows of the last period: drawn at random from {n}." in info.lines()[0]


@pytest.mark.parametrize("n_users", [1, 9])
def test_on_fewer_than_ten_windows_nothing_is_chosen_and_the_engine_still_answers(
    n_users: int,
) -> None:
    engine = InterestEngine.from_pretrained(data=world(n_users), model=None)
    with pytest.warns(UserWarning, match=f"no member was chosen: {n_users} people"):
        engine.fit()
    assert engine.settings.effort == ""
    assert engine.forecast("u000").category_weights.sum() == pytest.approx(1)
    assert len(engine.recommend("u000", k=3)) == 3


def test_on_fewer_than_ten_windows_all_periods_together_say_how_to_forecast(tmp_path: Path) -> None:
    for n_users, kind in ((1, DecayedDirichlet), (9, PretrainedForecaster)):
        assert type(fit_engine(world(n_users), "quick").prior) is kind
    fitted = fit_engine(world(9), "quick", without=["PretrainedForecaster"])
    assert type(fitted.prior) is DecayedDirichlet
    engine = InterestEngine.from_pretrained(data=world(9), model=None)
    assert engine.settings.report["forecast"]["members"][0]["kept"]
    engine.save_pretrained(tmp_path / "engine")
    loaded = InterestEngine.from_pretrained(str(tmp_path / "engine"), data=world(9))
    np.testing.assert_array_equal(
        loaded.forecast("u003").category_weights, engine.forecast("u003").category_weights
    )


def test_without_torch_the_nets_of_other_logs_stay_as_they_come_and_the_engine_says_so(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmrec.forecasters.registry.find_spec", lambda name: None)
    fitted = fit_engine(dataset, "standard", without=NOT_NEEDED)
    assert "training it further needs torch" in fitted.report["forecast"]["reason"]
    assert members(fitted, "forecast")["PretrainedForecaster"]["loss"] is not None


def test_a_list_that_nothing_was_fitted_for_has_close_titles_if_titles_tell_anything() -> None:
    told = replace(read_table(table(4, 40, 5), name="told", period="7D"), repeat="exclude")
    blend = fit_engine(told, "quick").blend
    assert [type(one).__name__ for one in blend.scorers] == ["RecentPopularity", "ItemToItem"]
    histories = told.histories(told.everybody.end)
    spreads = [one.scores(histories).std(axis=1).mean() for one in blend.scorers]
    popularity, titles = np.multiply(blend.weights, spreads)
    assert titles == pytest.approx(4 * popularity, rel=0.05)
    kernel = fit_engine(told, "quick", without=["EaseWithText"]).blend
    assert [type(one).__name__ for one in kernel.scorers] == ["RecentPopularity", "TitleKernel"]
    alone = fit_engine(told, "quick", without=["EaseWithText", "TitleKernel"]).blend
    again = fit_engine(replace(told, repeat="allow"), "quick").blend
    for other, name in ((alone, "RecentPopularity"), (again, "PersonalRepeat")):
        assert [type(one).__name__ for one in other.scorers] == [name]


def test_windows_too_few_to_choose_by_leave_it_to_the_nets_of_other_logs() -> None:
    fitted = fit_engine(world(20), "quick")
    assert isinstance(fitted.prior, PretrainedForecaster)
    assert [name for name, one in members(fitted, "forecast").items() if one["kept"]] == [
        "PretrainedForecaster"
    ]
    without = fit_engine(world(20), "quick", without=["PretrainedForecaster"])
    assert isinstance(without.prior, DecayedDirichlet)


@pytest.mark.parametrize(("n_items", "n_categories"), [(1, 1), (20, 1)])
def test_logs_of_one_item_or_one_category_are_fitted(n_items: int, n_categories: int) -> None:
    data = read_table(table(60, n_items, n_categories), name="small", period="7D")
    engine = InterestEngine.from_pretrained(data=data, model=None).fit()
    assert engine.settings.effort == "standard"
    assert engine.forecast("u001").category_weights.tolist() == [1.0]
    assert len(engine.recommend("u001", k=10)) == min(10, n_items)


def test_a_last_period_without_people_leaves_nothing_to_fit_on() -> None:
    late = table(1, 5, 5).head(1).assign(timestamp=START + np.timedelta64(365, "D"), user_id="late")
    rows = pd.concat([table(60, 20, 5), late])
    engine = InterestEngine.from_pretrained(
        data=read_table(rows, period="7D", keep_outliers=True), model=None
    )
    with pytest.warns(UserWarning, match="no member was chosen: 0 people"):
        engine.fit()
    assert len(engine.recommend("u001", k=3)) == 3


def test_an_unknown_effort_or_member_is_refused_and_nothing_changes(dataset: Dataset) -> None:
    engine = InterestEngine.from_pretrained(data=dataset, model=None)
    before = engine.settings, engine.prior, engine.blend
    with pytest.raises(DataError, match="effort is 'much'; it should be one of quick, standard"):
        engine.fit("much")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"no member is called 'Easy'; choose from .*Ease"):
        engine.fit("quick", without=["Easy"])
    with pytest.raises(DataError, match="no member is called 'Easy'"):
        fit_engine(world(3), "quick", without=["Easy"])
    with pytest.raises(DataError, match="no language model"):
        engine.fit("quick", use_llm=True)
    assert (engine.settings, engine.prior, engine.blend) == before


def test_members_that_are_not_wanted_are_not_fitted(dataset: Dataset) -> None:
    without = ["GlobalDrift", "PretrainedForecaster", "SparseEaseByDays"]
    fitted = fit_engine(dataset, "quick", without=without)
    assert set(members(fitted, "forecast")) == {"DecayedDirichlet"}
    assert "SparseEaseByDays" not in members(fitted, "list")


@pytest.mark.parametrize(
    "error",
    [TrainingError("a weight is no number"), MissingExtraError("it needs torch"), ImportError("x")],
)
def test_a_forecaster_that_fails_is_left_out_with_its_reason(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    whole = MemberFit._expert

    def failing(self: MemberFit, name: str) -> Forecaster:
        if name == "GlobalDrift":
            raise error
        return whole(self, name)

    monkeypatch.setattr(MemberFit, "_expert", failing)
    fitted = fit_engine(dataset, "quick")
    left_out = members(fitted, "forecast")["GlobalDrift"]
    assert not left_out["kept"]
    assert left_out["reason"] == f"{type(error).__name__}: {error}"
    assert fitted.prior.forecast(dataset.histories(np.datetime64("2021-01-01"), [0]))


@pytest.mark.parametrize("missing", ["lightgbm", "torch"])
def test_a_missing_package_costs_its_members_alone(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    def refuse() -> None:
        raise MissingExtraError("needs the package lightgbm")

    others = ("CategoryEASE", "NeighbouringUsers", "RidgeAutoregression", "CategoryMarkov")
    if missing == "lightgbm":
        monkeypatch.setattr("llmrec.ranking.gbdt.import_lightgbm", refuse)
        fitted = fit_engine(dataset, "standard", without=others)
        assert "needs the package lightgbm" in members(fitted, "list")[TREES]["reason"]
        assert fitted.blend.trees is None
        return
    for module in ("network", "next_item", "sequential"):
        monkeypatch.setitem(__import__("sys").modules, f"llmrec.forecasters.{module}", None)
    fitted = fit_engine(dataset, "best", without=(*others, TREES))
    for name in ("CellMLP", "GRU4Rec"):
        assert not members(fitted, "forecast")[name]["kept"]
    assert not members(fitted, "list")["GRU4Rec"]["kept"]
    assert fitted.effort == "best"


def test_a_net_that_diverges_on_the_whole_log_alone_stays_as_it_was_judged(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from llmrec.forecasters import next_item

    monkeypatch.setitem(next_item.DEFAULT_STEPS, "GRU4Rec", 2)
    fit_scorer = next_item.NextItemScorer.fit

    def diverging(self: Any, events: Any, *values: Any, **options: Any) -> Any:
        if len(events) == len(dataset.log):
            raise TrainingError("the loss is no number")
        return fit_scorer(self, events, *values, **options)

    monkeypatch.setattr(next_item.NextItemScorer, "fit", diverging)
    everything = (*NOT_NEEDED, "CellMLP", "GRU", "SASRec", "eSASRec", "DecayedDirichlet")
    fitted = fit_engine(dataset, "best", without=(*everything, "GlobalDrift"))
    assert "GRU4Rec is that of before the last period" in fitted.report["forecast"]["reason"]
    assert "the loss is no number" in members(fitted, "list")["GRU4Rec"]["reason"]
    assert fitted.prior.forecast(dataset.histories(np.datetime64("2021-01-01"), [0]))


def test_a_net_of_items_in_other_categories_is_trained_again(dataset: Dataset) -> None:
    turned = np.roll(np.array(dataset.catalog.categories), 1)
    frame = pd.DataFrame(
        {
            "item_id": dataset.catalog.item_ids,
            "categories": [[turned[item % 5]] for item in range(dataset.catalog.n_items)],
        }
    )
    moved = replace(dataset, catalog=Catalog.from_frame(frame))
    assert moved.catalog.categories == dataset.catalog.categories
    keys = [
        MemberFit(one, past_windows(one), "best", 0, frozenset(), FitStore(None), print)._key(
            one.log, "forecast"
        )
        for one in (dataset, moved)
    ]
    assert keys[0]["log"] == keys[1]["log"]
    assert keys[0] != keys[1]


def test_every_member_is_in_the_report_with_its_figures(dataset: Dataset) -> None:
    lines: list[str] = []
    fitted = fit_engine(dataset, "quick", show=lines.append)
    for name, member in members(fitted, "forecast").items():
        assert member["loss"] > 0
        assert any(line.startswith(f"{name} ...") for line in lines)
    assert (
        fitted.report["forecast"]["loss"]
        <= members(fitted, "forecast")["DecayedDirichlet"]["loss"] + 1e-3
    )
    assert fitted.report["windows"] == len(fitted.windows)


def test_a_killed_fit_trains_only_what_is_missing(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from llmrec.forecasters import next_item

    trained: list[str] = []
    monkeypatch.setitem(next_item.DEFAULT_STEPS, "GRU4Rec", 2)
    fit_network, fit_scorer = MemberFit._train_network, next_item.NextItemScorer.fit
    is_killed = True

    def counted_network(self: MemberFit, name: str) -> Any:
        trained.append(name)
        return fit_network(self, name)

    def counted_scorer(self: Any, *values: Any, **options: Any) -> Any:
        if is_killed and "GRU4Rec" in trained:
            raise KeyboardInterrupt
        trained.append(self.model)
        return fit_scorer(self, *values, **options)

    monkeypatch.setattr(MemberFit, "_train_network", counted_network)
    monkeypatch.setattr(next_item.NextItemScorer, "fit", counted_scorer)
    without = (*NOT_NEEDED, "GRU", "SASRec", "eSASRec")

    def fit(store: FitStore) -> FittedEngine:
        return fit_engine(dataset, "best", without=without, store=store)

    with pytest.raises(KeyboardInterrupt):
        fit(FitStore(tmp_path))
    assert trained == ["CellMLP", "GRU4Rec"]
    is_killed = False
    trained.clear()
    resumed = fit(FitStore(tmp_path))
    assert trained == ["GRU4Rec"]  # on the whole log
    trained.clear()
    whole = fit(FitStore(None))
    assert trained == ["CellMLP", "GRU4Rec", "GRU4Rec"]
    histories = dataset.histories(np.datetime64("2021-01-01"))
    for one, two in zip(
        resumed.prior.forecast(histories), whole.prior.forecast(histories), strict=True
    ):
        assert one.category_weights.tobytes() == two.category_weights.tobytes()
    scores = [found.blend.weighted_scores(histories).tobytes() for found in (resumed, whole)]
    assert scores[0] == scores[1]


def test_of_too_many_categories_members_are_chosen_on_fewer_windows_and_it_is_said(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit_engine(dataset, "quick")
    monkeypatch.setattr("llmrec.engine_members.MAX_QUICK_WINDOWS", 50)
    monkeypatch.setattr("llmrec.engine_members.MAX_VALIDATION_CELLS", 55 * 5)
    fitted = fit_engine(dataset, "quick")
    assert len(fitted.windows) == 55
    assert len(fitted.everybody) <= 56  # a part of each kind of windows, rounded up
    assert fitted.report["windows"] == 55
    assert "chosen on 55 of 60 windows" in fitted.report["forecast"]["reason"]
    assert "windows" not in whole.report["forecast"]["reason"]


def test_members_that_refuse_so_many_categories_are_reported_as_left_out(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmrec.forecasters.collaborative.MAX_SQUARE_CATEGORIES", 4)
    monkeypatch.setattr("llmrec.engine_members.MAX_LIFT_CATEGORIES", 4)
    monkeypatch.setattr(MemberFit, "scorer_names", ["RecentPopularity"])
    without = ("NeighbouringUsers", "RidgeAutoregression", TREES)
    fitted = fit_engine(dataset, "standard", without=without)
    figures = members(fitted, "forecast")
    for name in ("CategoryEASE", "CategoryMarkov"):
        assert not figures[name]["kept"]
        assert "of 4 categories at most, not 5" in figures[name]["reason"]
    assert "nothing of what is taken together" in fitted.report["forecast"]["reason"]
