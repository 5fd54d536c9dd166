"""How a fit goes: on which events, no worse than before, and what a model is calibrated on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from llmrec import InterestEngine
from llmrec.data.calendar import MILLISECOND
from llmrec.data.dataset import Dataset
from llmrec.data.interactions import Interactions
from llmrec.data.periods import History, Window, truncate_log
from llmrec.data.provenance import events_fingerprint
from llmrec.data.readers import load_dataset
from llmrec.data.splits import past_windows, sample_windows, training_log_for
from llmrec.data.windows import MIN_FIT_WINDOWS, holdout_cutoff, last_period_windows, make_windows
from llmrec.engine_fit import fit_engine
from llmrec.engine_folder import EngineSettings
from llmrec.engine_settings import Effort
from llmrec.errors import DataError
from llmrec.forecast import ItemScorer
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.adapters import AdapterMetadata
from llmrec.language.model import LanguageModel
from llmrec.ranking.blend import Blend, fit_blend
from llmrec.ranking.fitting import build_blend, evaluate_rankings
from llmrec.ranking.new_items import NEW_ITEM_ONLY_SCORER
from llmrec.ranking.ranking import rank
from llmrec.ranking.registry import LM_SCORER, build_scorer, default_scorers, text_scorers
from llmrec.ranking.selection import TREES, ListSelection, select_list
from llmrec.ranking.weights import choose_added_weight
from llmrec.types import FloatArray, RepeatPolicy, TimeArray
from tests.real_parts import needs_real_parts
from tests.test_engine import TitleModel, merged
from tests.worlds import catalog, log

BEFORE = ("RecentPopularity", "PersonalRepeat", "ImplicitALS")  # what engines once blended


def world(period: str = "7D", n_users: int = 80) -> Dataset:
    items = catalog()
    events = log(n_users, n_periods=8).align_to(items)
    return Dataset("world", events, items, period, "items", "person", "allow")


def times_of(user_id: str, events: Interactions) -> TimeArray:
    user = events.user_index(user_id)
    return events.timestamp[slice(*events.user_offsets[user : user + 2])]


@dataclass(frozen=True)
class Knowing:
    """Scores the target's items above all others."""

    windows: Sequence[Window]
    name: str = "knows"

    def scores(self, histories: Sequence[History]) -> FloatArray:
        targets = {w.history.user_idx: w.target.item_idx for w in self.windows}
        found = np.full((len(histories), histories[0].catalog.n_items), -5.0)
        for row, history in zip(found, histories, strict=True):
            row[targets[history.user_idx]] = -1.0
        return found


def fit_list(dataset: Dataset, windows: Sequence[Window]) -> ListSelection:
    """Fit the default scorers of a log, and weigh them on windows."""
    names = default_scorers(dataset.period, dataset.catalog.n_items, dataset.repeat)

    def fit(name: str, events: Interactions, cutoff: np.datetime64 | None) -> ItemScorer:
        return build_scorer(name, events, dataset.catalog, cutoff)

    end = dataset.log.timestamp.max() + MILLISECOND
    return select_list(
        dataset.log,
        dataset.catalog,
        [windows],
        names,
        fit,
        cutoff=end,
        repeat=dataset.repeat,
        without=[TREES],
    )


def ndcg(blend: Blend, windows: Sequence[Window], dataset: Dataset) -> float:
    histories = [window.history for window in windows]
    forecasts = DecayedDirichlet().forecast(histories)
    lists = rank(forecasts, histories, blend, k=10, strength=0, repeat=dataset.repeat)
    table = evaluate_rankings({"it": lists}, windows, repeat=dataset.repeat)
    return float(table.set_index("metric").loc["ndcg@10", "value"])


def held_out(dataset: Dataset, fitted: Sequence[Window], judged: Sequence[Window]) -> list[float]:
    """NDCG@10 on some windows of the blend fitted on others, as it is and as it once was."""
    before = training_log_for([*fitted, *judged])
    members = fit_list(dataset, fitted).members
    scorers = [build_scorer(member.name, before, dataset.catalog) for member in members]
    now = Blend(scorers, [member.weight for member in members])
    old = [build_scorer(name, before, dataset.catalog) for name in BEFORE]
    once = fit_blend(old, fitted, repeat=dataset.repeat)
    return [ndcg(blend, judged, dataset) for blend in (now, once)]


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_the_log_before_windows_holds_their_histories_and_nothing_of_their_targets(
    period: str,
) -> None:
    dataset = world(period)
    windows = last_period_windows(dataset.log, dataset.catalog, period)[::2]
    before = training_log_for(windows)
    for window in windows:
        own = window.history.event_ids
        known = window.history.log.timestamp[own.start : own.stop]
        np.testing.assert_array_equal(times_of(window.history.user_id, before), known)
    others = set(dataset.log.user_ids) - {window.history.user_id for window in windows}
    assert len(others) >= 40
    for user in others:  # days: one time cuts everybody; events: nobody judges these, all stays
        known = times_of(user, dataset.log)
        if period == "7D":
            known = known[known < windows[0].history.cutoff]
        np.testing.assert_array_equal(times_of(user, before), known)


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_what_happens_in_the_targets_and_after_does_not_reach_the_fitted_scorers(
    period: str,
) -> None:
    dataset = world(period)
    windows = last_period_windows(dataset.log, dataset.catalog, period)
    early = sample_windows(windows, 40)
    histories = [window.history for window in early]
    # A scorer that had seen a target's events would refuse the history that lacks them.
    for name in ("Ease", "EaseByEvents", "EaseByDays", "Cosine", "Successors"):
        assert build_scorer(name, training_log_for(early), dataset.catalog).scores(histories).any()
        with pytest.raises(ValueError, match="fit it"):
            build_scorer(name, dataset.log, dataset.catalog).scores(histories)


@pytest.mark.parametrize("period", ["7D", "10 events"])
def test_lists_of_people_held_out_are_not_worse_than_those_of_the_blend_before(
    period: str,
) -> None:
    pytest.importorskip("implicit")
    dataset = world(period, n_users=200)
    windows = last_period_windows(dataset.log, dataset.catalog, period)
    now, once = held_out(dataset, windows[::2], windows[1::2])
    assert now > once - 0.01


@needs_real_parts
def test_on_films_the_blend_beats_the_one_before_by_a_tenth() -> None:
    pytest.importorskip("implicit")
    dataset = load_dataset("ml-100k")
    dataset = replace(
        dataset, log=truncate_log(dataset.log, holdout_cutoff(dataset.log, dataset.period))
    )
    windows = sample_windows(last_period_windows(dataset.log, dataset.catalog, dataset.period), 240)
    now, once = held_out(dataset, windows[::2], windows[1::2])
    assert now > 1.1 * once


def test_a_scorer_that_is_given_joins_the_blend_with_the_weight_it_earns() -> None:
    dataset = world()
    windows = last_period_windows(dataset.log, dataset.catalog, dataset.period)
    given = {LM_SCORER: Knowing(windows)}
    blend = fit_list(dataset, windows).validation_blend
    weight = choose_added_weight(blend, given[LM_SCORER], windows, repeat=dataset.repeat)
    assert weight > 0.2 * sum(blend.weights)
    both = Blend((*blend.scorers, given[LM_SCORER]), (*blend.weights, weight))
    assert ndcg(both, windows, dataset) > ndcg(blend, windows, dataset)
    weights = {"PersonalRepeat": 1.0, LM_SCORER: weight}
    end = dataset.log.timestamp.max() + MILLISECOND
    assert "knows" in build_blend(dataset, end, weights, given).names
    with pytest.raises(DataError, match="title embeddings"):
        build_blend(dataset, end, weights)


@pytest.mark.parametrize(("n_scores", "n_windows"), [(4 * 25 * 23, 23), (1, MIN_FIT_WINDOWS)])
def test_the_larger_the_catalog_the_fewer_windows_are_scored_but_ten(
    monkeypatch: pytest.MonkeyPatch, n_scores: int, n_windows: int
) -> None:
    dataset = world()
    windows = last_period_windows(dataset.log, dataset.catalog, dataset.period)
    monkeypatch.setattr("llmrec.ranking.folds.MAX_STORED_SCORES", n_scores)
    assert len(fit_list(dataset, windows).windows) == n_windows


def test_settings_without_titles_rank_by_the_other_scorers_or_by_popularity() -> None:
    both = EngineSettings(blend={"Ease": 0.4, LM_SCORER: 0.6}, titles=0.8)
    assert both.without_titles() == EngineSettings(blend={"Ease": 0.4})
    assert both.without_adapter("other").blend == {"Ease": 0.4}
    alone = EngineSettings(blend={"Ease": 0.0, LM_SCORER: 0.6})
    assert alone.without_titles().blend == {"RecentPopularity": 1.0}


def test_settings_of_an_earlier_version_load_and_rank_as_they_did(tmp_path: Path) -> None:
    pytest.importorskip("implicit")
    weights: Mapping[str, float] = dict(zip(BEFORE, (0.2, 0.6, 0.1), strict=True))
    (tmp_path / "engine.json").write_text(json.dumps({"blend": weights, "strength": 0.5}))
    loaded, dataset = EngineSettings.load(tmp_path / "engine.json"), world()
    end = dataset.log.timestamp.max() + MILLISECOND
    blend = build_blend(dataset, end, loaded.without_titles().blend)
    assert blend.names == (
        "popular in the last 28 days",
        "taken before or popular",
        "people with similar taste",
    )
    assert tuple(blend.weights) == (0.2, 0.6, 0.1)


@pytest.mark.parametrize(
    ("repeat", "names"),
    [
        (
            "exclude",
            ("popular in the last 28 days", "goes with, or is titled like, what was taken lately"),
        ),
        ("allow", ("taken before or popular",)),
    ],
)
def test_a_short_log_has_a_scorer_of_repeats_only_where_items_may_be_listed_again(
    repeat: RepeatPolicy, names: tuple[str, ...]
) -> None:
    short = replace(world(), repeat=repeat)
    short = replace(short, log=truncate_log(short.log, short.log.timestamp.min() + MILLISECOND))
    fitted = fit_engine(short, "standard")
    assert fitted.blend.names == names
    assert fitted.effort == ""
    assert "0 people have a history" in fitted.report["reason"]


def test_a_blend_whose_weights_are_all_0_is_popularity() -> None:
    dataset = world()
    end = dataset.log.timestamp.max() + MILLISECOND
    blend = build_blend(dataset, end, {"PersonalRepeat": 0.0, "Ease": 0.0})
    assert blend.names == ("popular in the last 28 days",)


def test_the_scorers_fitted_on_a_log_suit_it_and_the_report_names_them() -> None:
    films = replace(world("10 events"), repeat="exclude")
    for dataset, names in (
        (
            world(),
            {"RecentPopularity", "PopularityTrend", "PersonalRepeat", "SparseEaseByDays"},
        ),
        (
            films,
            {"RecentPopularity", "SparseEase", "SparseEaseByEvents", "NextItems", "Successors"},
        ),
    ):
        members = fit_engine(dataset, "quick").report["list"]["members"]
        text = set(text_scorers(dataset.catalog)) - {NEW_ITEM_ONLY_SCORER}
        assert {member["name"] for member in members} == names | text
        assert any(member["weight"] for member in members)


def test_windows_at_one_cutoff_hide_everybody_s_later_events() -> None:
    dataset = world("10 events")
    cutoff = holdout_cutoff(dataset.log, "10 events")
    windows = make_windows(dataset.log, dataset.catalog, "10 events", cutoff)
    assert training_log_for(windows).timestamp.max() < cutoff


def model_trained_on(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch, fingerprint: str
) -> InterestEngine:
    """Open an engine around a model that learned from a log until just before its last period."""
    monkeypatch.setattr(LanguageModel, "load", lambda name, **_: TitleModel())
    name = merged(folder, dataset, cutoff=str(dataset.log.timestamp.max()))
    about = replace(AdapterMetadata.load(folder), data_fingerprint=fingerprint)
    about.save(folder)
    with pytest.warns(UserWarning, match="no calibration weighs the titles"):
        return InterestEngine.from_pretrained(name, data=dataset)


@pytest.mark.parametrize(
    ("effort", "use_llm", "n_windows", "is_known", "reason"),
    [
        ("quick", True, 500, True, "the adapter learned from world up to"),
        ("best", None, 500, False, "the adapter learned from world up to"),
        ("best", None, 49, True, "49 validation windows are too few"),
    ],
)
def test_a_model_that_could_not_be_calibrated_is_refused_before_anything_is_trained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    effort: Effort,
    use_llm: bool | None,
    n_windows: int,
    is_known: bool,
    reason: str,
) -> None:
    dataset = world()
    fingerprint = events_fingerprint(dataset.log) if is_known else "of a log that changed"
    engine = model_trained_on(dataset, tmp_path, monkeypatch, fingerprint)
    before = engine.settings
    monkeypatch.setattr("llmrec.engine_refit.fit_engine", None)
    with pytest.raises(DataError, match=reason):
        engine.fit(effort, use_llm=use_llm, n_windows=n_windows)
    assert engine.settings == before


def test_with_effort_best_a_model_is_calibrated_on_windows_that_it_has_not_learned_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = world()
    fingerprint = events_fingerprint(dataset.log)
    engine = model_trained_on(dataset, tmp_path, monkeypatch, fingerprint)
    monkeypatch.setattr(
        "llmrec.engine_refit.fit_engine",
        lambda dataset, effort, *, seed, **_: fit_engine(dataset, "quick", seed=seed),
    )
    with pytest.raises(DataError, match="learned from world up to"):
        engine.fit("best", use_llm=True)
    engine.fit("best")
    assert engine.forecaster.calibration is not None
    assert engine.settings.report["llm"]["windows"] == len(past_windows(dataset)[0])


def test_with_effort_best_too_few_windows_that_were_not_learned_from_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = world()
    engine = model_trained_on(dataset, tmp_path, monkeypatch, events_fingerprint(dataset.log))
    monkeypatch.setattr("llmrec.engine_refit.fit_engine", None)
    monkeypatch.setattr(
        "llmrec.engine_language.was_trained_on",
        lambda dataset, **_: lambda window: window.history.user_idx >= 40,
    )
    with pytest.raises(DataError, match="40 validation windows are too few"):
        engine.fit("best")
