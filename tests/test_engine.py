from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmrec
from llmrec import DataError, Edit, Interactions, InterestEngine
from llmrec.data.dataset import Dataset
from llmrec.data.periods import History
from llmrec.data.readers import read_table
from llmrec.engine_fit import fit_engine
from llmrec.engine_folder import CALIBRATION_FILE, SETTINGS_FILE, EngineSettings
from llmrec.engine_resolve import describe_fit
from llmrec.errors import EditError
from llmrec.forecasters.calibration import Calibration
from llmrec.language.adapters import AdapterMetadata
from llmrec.language.model import LanguageModel
from llmrec.ranking.blend import Blend
from llmrec.ranking.calibrated_rerank import smoothed_kl
from llmrec.ranking.edit_parser import parse_edits
from llmrec.ranking.item_item import Ease, ItemToItem
from llmrec.ranking.lm_scorer import LMItemScorer
from llmrec.ranking.registry import LM_SCORER, build_scorer
from llmrec.types import FloatArray
from tests.forecasters.fakes import FakeModel
from tests.ranking.fakes import FakeTitleModel
from tests.worlds import CATEGORIES, START


def frame(n_users: int = 60, n_days: int = 70) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(n_users):
        taste = rng.dirichlet(np.ones(5))
        for _ in range(40):
            item = int(rng.choice(5, p=taste)) + 5 * int(rng.integers(5))
            time = START + np.timedelta64(int(rng.integers(n_days * 24 * 3600)), "s")
            rows.append(
                (f"u{user:03d}", f"i{item:03d}", time, f"Title {item}", CATEGORIES[item % 5])
            )
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "title", "categories"])


class TitleModel(FakeModel):
    """Scores and generates as the fake does, and has title embeddings; it is a merged model."""

    base_fingerprint = "fake"

    def __init__(self) -> None:
        with_titles = FakeTitleModel([f"Title {item}" for item in range(25)])
        self.title_embeddings, self.encode = with_titles.title_embeddings, with_titles.encode  # type: ignore[method-assign]
        self.title_probabilities = with_titles.title_probabilities  # type: ignore[method-assign]


def merged(folder: Path, dataset: Dataset, *, cutoff: str) -> str:
    """Write what a merged model says of itself: what it learned from, and until when."""
    names = dataset.catalog.categories
    about = AdapterMetadata(
        base_model="fake",
        base_fingerprint="fake",
        labels=names,
        categories=names,
        prompt="forecast-v3",
        dataset=dataset.name,
        data_fingerprint="",
        cutoff=cutoff,
        period=dataset.period,
        seed=0,
        config={"budget": 300},
        metrics={},
        versions={},
        merged=True,
    )
    folder.mkdir(exist_ok=True)
    about.save(folder)
    return str(folder)


def figures(engine: InterestEngine) -> dict[str, Any]:
    """Give the figures by which an engine's members were chosen, without how long it took."""
    return {name: found for name, found in engine.settings.report.items() if name != "seconds"}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return read_table(frame(), name="small", period="7D")


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanguageModel, "load", lambda name, **_: FakeModel())


def test_five_lines_give_a_forecast_and_explained_items(dataset: Dataset) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    forecast = engine.forecast("u001")
    items = engine.recommend("u001", k=5)
    assert forecast.description
    assert [item.rank for item in items] == [1, 2, 3, 4, 5]
    assert all(item.why for item in items)


def test_a_calibrated_list_nears_the_edited_forecast_and_holds_nothing_muted(
    dataset: Dataset,
) -> None:
    engine, edits = InterestEngine.from_pretrained(data=dataset), [Edit("War", 0.0)]
    session = engine.session("u001", edits=edits)
    wanted = session.effect().after.category_weights
    distances = []
    for dial in (0.0, 0.5, 1.0):
        items = session.recommend(8, calibrate=dial)
        assert [item.rank for item in items] == list(range(1, 9))
        named = [name for item in items for name in item.explanation.forecast_shares]
        mix = np.array([named.count(name) / 8 for name in dataset.catalog.categories])
        assert "War" not in named
        distances.append(float(smoothed_kl(wanted, mix)))
    assert distances[0] > distances[2] == min(distances)
    assert session.recommend(8)[0].score == max(
        item.score for item in session.recommend(8, calibrate=0.01)
    )


@pytest.mark.parametrize("edits", ["more war", ["more war"], Edit("War", 2.0)])
def test_what_is_no_list_of_edits_opens_no_session(dataset: Dataset, edits: Any) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    with pytest.raises(EditError, match="edits are a list"):
        engine.session("u001", edits=edits)


@pytest.mark.parametrize("dial", [-0.1, 1.1, float("nan")])
def test_a_dial_out_of_bounds_is_refused(dataset: Dataset, dial: float) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    with pytest.raises(EditError, match=r"a weight in 0\.\.1"):
        engine.recommend("u001", calibrate=dial)


def test_the_parts_of_every_score_add_up_to_it(dataset: Dataset) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    for item in engine.recommend("u002", k=25):
        parts = item.explanation.scorer_parts, item.explanation.category_parts
        assert sum(sum(part.values()) for part in parts) == pytest.approx(item.score, abs=1e-9)


def test_an_engine_sees_nothing_at_or_after_its_cutoff(dataset: Dataset) -> None:
    cutoff = dataset.log.timestamp.min() + np.timedelta64(40, "D")
    engine = InterestEngine.from_pretrained(data=dataset, cutoff=cutoff)
    early = read_table(frame().query("timestamp < @cutoff"), name="small", period="7D")
    alone = InterestEngine.from_pretrained(data=early, cutoff=cutoff)
    assert engine.dataset.log.timestamp.max() < cutoff
    assert figures(engine) == figures(alone)
    assert engine.blend.names == alone.blend.names
    assert engine.blend.weights == pytest.approx(alone.blend.weights, abs=1e-6)
    for user in ("u000", "u030"):
        a, b = engine.forecast(user), alone.forecast(user)
        assert a.category_weights.tobytes() == b.category_weights.tobytes()
        assert [i.item_id for i in engine.recommend(user)] == [
            i.item_id for i in alone.recommend(user)
        ]


def test_an_option_that_no_model_takes_is_refused_before_anything_is_fitted(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("llmrec.engine_resolve.fit_engine", None)
    with pytest.raises(TypeError, match="'colour'"):
        InterestEngine.from_pretrained(data=dataset, colour="red")
    with pytest.raises(TypeError, match=r"'write'; write= of version 0\.1 is describe="):
        InterestEngine.from_pretrained(data=dataset, write=False)


def test_people_keep_their_ids_where_the_catalog_lacks_some_items(dataset: Dataset) -> None:
    table = frame()
    table.loc[table["user_id"] == "u005", "item_id"] = "unknown"
    log = Interactions.from_frame(table)
    engine = InterestEngine.from_pretrained(data=replace(dataset, log=log))
    assert engine.history("u006").user_id == "u006"
    with pytest.raises(DataError, match="u005"):
        engine.history("u005")


@pytest.mark.parametrize("data", [pd.DataFrame(), 7])
def test_what_is_no_dataset_is_refused(data: Any) -> None:
    with pytest.raises(DataError, match="data is a Dataset"):
        InterestEngine.from_pretrained(data=data)


def test_an_engine_survives_its_folder(dataset: Dataset, tmp_path: Path) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    engine.fit("quick", use_llm=True, n_windows=60)
    engine.save_pretrained(tmp_path)
    again = InterestEngine.from_pretrained(str(tmp_path), data=dataset)
    assert again.settings == engine.settings
    assert again.forecaster.calibration is not None
    for user in ("u003", "u004"):
        a, b = engine.forecast(user), again.forecast(user)
        assert a.category_weights.tobytes() == b.category_weights.tobytes()
        assert a.description == b.description


def test_an_engine_without_calibration_falls_back_and_says_so(dataset: Dataset) -> None:
    forecast = InterestEngine.from_pretrained(data=dataset).forecast("u001")
    assert forecast.source.how == "fallback"
    assert "no calibration" in forecast.source.why


def test_claims_of_the_model_that_do_not_hold_are_counted_and_not_shown(dataset: Dataset) -> None:
    parts = InterestEngine.from_pretrained(data=dataset)._parts
    without = replace(parts, statements=None)  # of a log too small for any
    engine = InterestEngine(without, describe=True)
    names = dataset.catalog.categories
    for history in engine.histories(range(20)):
        forecast = engine.forecast(history)
        said = [
            s for s in forecast.statements if names[s.category] == "Drama" and s.kind == "rising"
        ]
        # The fake always claims that Drama is rising: it is said if it holds, else counted. Where
        # nothing holds it is not called.
        asked = int(bool(forecast.statements))
        assert forecast.source.rejected + forecast.source.proposed == asked
        if not asked:
            continue
        assert forecast.source.rejected == 1 or said


def test_boosting_a_category_never_lowers_its_items_and_muting_never_lifts_them(
    dataset: Dataset,
) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    session = engine.session("u005")

    def best_war(*edits: Edit) -> int:
        items = session.edit(*edits).recommend(25)
        ranks = [item.rank for item in items if "War" in item.explanation.forecast_shares]
        return min(ranks, default=26)

    assert best_war(Edit("War", 20.0)) <= best_war() < best_war(Edit("War", 0.0)) == 26


def test_an_effect_is_predicted_and_then_verified(dataset: Dataset) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    edits = [Edit("War", 3.0), Edit("Drama", 0.0)]
    session = engine.session("u005", edits=edits, strength=2.0)
    effect, forecast = session.effect(), session.forecast
    outcome = effect.verify(5)
    items = session.recommend(5)
    listed = [dataset.catalog.item_ids[item] for item in outcome.listed]
    assert outcome.holds
    assert listed == [item.item_id for item in items]
    told = items[0].explanation
    assert told.edit_factors == {"War": 3.0}
    assert told.forecast_shares == {"War": float(forecast.category_weights[4])}
    assert told.edited_shares == {"War": pytest.approx(float(effect.after.category_weights[4]))}


def test_an_effect_with_its_verification_asks_each_scorer_once(dataset: Dataset) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    asked: list[str] = []

    class Counted:
        name = "counted"

        def scores(self, histories: Sequence[History]) -> FloatArray:
            asked.extend(history.user_id for history in histories)
            return np.zeros((len(histories), dataset.catalog.n_items))

    engine.blend = Blend([*engine.blend.scorers, Counted()], [*engine.blend.weights, 1.0])
    effect = engine.session("u005", edits=[Edit("War", 3.0)], strength=2.0).effect()
    assert effect.verify().holds
    assert effect.verify(3).holds
    assert asked == ["u005"]


def test_a_list_is_shorter_where_the_rest_is_muted(dataset: Dataset) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    edits = [Edit(name, 0.0) for name in CATEGORIES[1:]]
    assert len(engine.session("u001", edits=edits).recommend(10)) == 5


def test_why_not_answers_for_an_item_the_user_names(dataset: Dataset) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    last = engine.recommend("u001", k=25)[-1]
    answer = engine.session("u001").why_not(last.item_id, k=3)
    assert last.title in answer.text
    assert answer.rank is not None
    assert answer.rank > 3


def test_why_not_and_explain_are_about_the_list_that_recommend_gives(dataset: Dataset) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    wishes = parse_edits("three times as much war, no drama", dataset.catalog, engine.cutoff)
    session = engine.session("u005", edits=wishes.edits, strength=2.0)
    items = session.recommend(25)
    listed = {item.item_id for item in items}
    for item in items[::6]:
        found = session.explain(item.item_id, k=3)
        assert found.item == item.explanation
        assert session.why_not(item.item_id, k=3).rank == item.rank
    for muted in set(dataset.catalog.item_ids) - listed:
        answer = session.why_not(muted, k=25)
        assert "a category of it is muted" in answer.text
        assert session.explain(muted, k=25).change == answer
    ids = [dataset.catalog.item_ids[item] for item in session.effect().predicted_list(25)]
    assert ids == [item.item_id for item in items]


def test_an_explanation_holds_for_items_on_the_list_and_off_it(dataset: Dataset) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    session = engine.session("u001", edits=[Edit("War", 3.0)])
    items = session.recommend(25)
    for item in (items[0], items[2], items[3], items[-1]):
        found = session.explain(item.item_id, k=3)
        assert found.item is not None
        assert found.item == item.explanation
        changed = found.change.edits
        if changed:
            again = engine.session("u001", forecast=session.forecast, edits=changed).recommend(25)
            after = {i.item_id: i.rank for i in again}.get(item.item_id)
            if any(edit.factor == 0 for edit in found.change.edits):
                assert after is None  # muted: it is not recommended at all
            else:
                assert after == found.change.rank_after
                assert (after <= 3) != (item.rank <= 3)


@pytest.mark.parametrize("lock", [False, True])
def test_the_edits_of_an_answer_rank_as_it_says_together_with_those_given(
    dataset: Dataset, lock: bool
) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    edits = [Edit("War", 2.0), Edit("Drama", 1.0, lock=lock), Edit("Comedy", 0.5, lock=lock)]
    session = engine.session("u005", edits=edits, strength=1.0)
    tried = 0
    for item_id in dataset.catalog.item_ids[::2]:
        answer = session.why_not(item_id, k=5)
        if answer.factor is None:
            continue
        changed = engine.session("u005", edits=answer.edits, strength=1.0)
        items = changed.recommend(5)
        assert {item.item_id: item.rank for item in items}[item_id] == answer.rank_after
        assert [edit.lock for edit in answer.edits][1:3] == [lock, lock]
        tried += 1
    assert tried > 3


def test_model_text_that_does_not_hold_is_not_shown(dataset: Dataset) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    session = engine.session("u001")
    plain = session.explain("i004")
    found = session.explain("i004", model_words=True)
    assert found.item is not None
    assert "no true sentence" in found.item.rejection  # the fake speaks of Drama whatever is asked
    assert found.text == plain.text


def test_a_list_longer_than_the_catalog_gives_the_whole_catalog(dataset: Dataset) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    assert len(engine.recommend("u001", k=10_000)) == dataset.catalog.n_items


def test_an_unknown_user_or_item_is_named_with_near_ones(dataset: Dataset) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    with pytest.raises(DataError, match=r"u0011.*u001"):
        engine.forecast("u0011")
    with pytest.raises(DataError, match="i999"):
        engine.session("u001").why_not("i999")


def test_a_user_with_one_event_gets_a_forecast_and_a_list() -> None:
    table = frame()
    lone = pd.concat([table, table.tail(1).assign(user_id="lone")])
    engine = InterestEngine.from_pretrained(data=read_table(lone, name="small", period="7D"))
    assert engine.forecast("lone").category_weights.sum() == pytest.approx(1)
    assert len(engine.recommend("lone", k=3)) == 3


def test_a_log_too_short_to_fit_on_gets_defaults_and_still_answers() -> None:
    table = frame(n_users=3, n_days=3)
    engine = InterestEngine.from_pretrained(data=read_table(table, name="tiny", period="28D"))
    assert len(engine.recommend("u001", k=3)) == 3


def test_a_broken_settings_file_is_refused_by_name(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "engine.json").write_text("{")
    with pytest.raises(DataError, match=r"engine\.json"):
        InterestEngine.from_pretrained(str(tmp_path), data=dataset)
    (tmp_path / "engine.json").write_text('{"modle": "x"}')
    with pytest.raises(DataError, match="modle"):
        InterestEngine.from_pretrained(str(tmp_path), data=dataset)


def test_bundled_engines_fall_back_to_the_prior_itself_where_scores_have_no_weight() -> None:
    folders = sorted((Path(llmrec.__file__).parent / "engines").iterdir())
    assert [folder.name for folder in folders] == ["completejourney", "ml-100k"]
    for folder in folders:
        settings = EngineSettings.load(folder / "engine.json")
        values = json.loads((folder / "calibration.json").read_text(encoding="utf-8"))
        loaded = Calibration.load(folder / "calibration.json", values["categories"])
        assert settings.fitted_before
        assert settings.precision == "float32"  # the calibration is of these weights
        assert loaded.is_trusted or not loaded.bias.any()


def test_fitted_settings_hold_only_for_their_log_their_period_and_later_cutoffs(
    dataset: Dataset,
) -> None:
    end = dataset.log.timestamp.max() + np.timedelta64(1, "ms")
    settings = describe_fit(dataset, fit_engine(dataset, "quick"))
    assert settings.valid_for(dataset, end)
    assert not settings.valid_for(dataset, end - np.timedelta64(1, "D"))
    assert not settings.valid_for(replace(dataset, period="14D"), end)
    assert not settings.valid_for(read_table(frame(n_users=59), period="7D"), end)


def test_an_engine_fitted_on_the_future_is_refused_and_can_be_fitted_again(
    dataset: Dataset, tmp_path: Path
) -> None:
    InterestEngine.from_pretrained(data=dataset).save_pretrained(tmp_path)
    early = dataset.log.timestamp.min() + np.timedelta64(40, "D")
    with pytest.raises(DataError, match="beyond the cutoff"):
        InterestEngine.from_pretrained(str(tmp_path), data=dataset, cutoff=early)
    again = InterestEngine.from_pretrained(str(tmp_path), data=dataset, cutoff=early, refit=True)
    assert again.settings.fitted_before <= str(early)


def test_a_calibration_of_another_model_is_not_used_and_the_source_says_so(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    InterestEngine.from_pretrained(data=dataset).fit(
        "quick", use_llm=True, n_windows=60
    ).save_pretrained(tmp_path)
    monkeypatch.setattr(FakeModel, "fingerprint", "fake-2")
    with pytest.warns(UserWarning, match=r"without its category scores until .*engine\.fit\(\)"):
        engine = InterestEngine.from_pretrained(str(tmp_path), data=dataset)
    assert "another model" in engine.forecast("u001").source.why


def test_too_few_windows_to_fit_on_are_refused_before_anything_is_read() -> None:
    engine = InterestEngine.from_pretrained(data=read_table(frame(n_users=20), period="7D"))
    with pytest.raises(DataError, match="20 validation windows are too few"):
        engine.fit("quick", use_llm=True)


def engine_with_titles(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> InterestEngine:
    """Fit and save an engine around a model with title embeddings."""
    monkeypatch.setattr(LanguageModel, "load", lambda name, **_: TitleModel())
    model = merged(folder, dataset, cutoff="2020-01-01")
    with pytest.warns(UserWarning, match="titles that fake expects"):
        engine = InterestEngine.from_pretrained(model, data=dataset)
    assert LMItemScorer.name not in engine.blend.names
    engine.fit("quick", use_llm=True, n_windows=60)
    assert LM_SCORER in engine.settings.report["llm"]
    titles = engine.language.title_scorers[LM_SCORER]
    scorers, weights = (*engine.blend.scorers, titles), (*engine.blend.weights, 0.7)
    engine.blend = Blend(scorers, weights)  # a hash earns no weight
    engine.save_pretrained(folder)
    return engine


def test_a_model_with_title_embeddings_is_one_of_the_scorers_and_stays_it(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_with_titles(dataset, tmp_path, monkeypatch)
    again = InterestEngine.from_pretrained(str(tmp_path), data=dataset)
    item = again.recommend("u001", k=1)[0]
    assert again.settings == engine.settings
    assert item.explanation.scorer_parts[LMItemScorer.name] < 0


def test_in_another_precision_titles_are_left_out_with_a_warning_and_nothing_stored_is_lost(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, copy = tmp_path / "engine", tmp_path / "copy"
    fitted = engine_with_titles(dataset, folder, monkeypatch)
    stored = {path.name: path.read_bytes() for path in folder.glob("*.json")}
    monkeypatch.setattr(TitleModel, "fingerprint", "fake-1 rounded")
    monkeypatch.setattr(TitleModel, "precision", "bfloat16")
    message = (
        r"fake in bfloat16.*category scores and the titles.*dtype='float32', or engine\.fit\(\)"
    )
    with pytest.warns(UserWarning, match=message):
        other = InterestEngine.from_pretrained(str(folder), data=dataset)
    assert LMItemScorer.name not in other.recommend("u001", k=1)[0].explanation.scorer_parts
    assert other.settings == fitted.settings
    for place in (folder, copy):
        other.save_pretrained(place)
        for name in (SETTINGS_FILE, CALIBRATION_FILE):
            assert (place / name).read_bytes() == stored[name]
    other.fit("quick", use_llm=True, n_windows=60)
    assert other.settings.precision == "bfloat16"


def test_an_engine_is_loaded_in_the_precision_that_it_was_calibrated_in(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load(name: str, *, dtype: str) -> FakeModel:
        asked.append(dtype)
        return FakeModel()

    monkeypatch.setattr(LanguageModel, "load", load)
    InterestEngine.from_pretrained(data=dataset).fit(
        "quick", use_llm=True, n_windows=60
    ).save_pretrained(tmp_path)
    InterestEngine.from_pretrained(str(tmp_path), data=dataset)
    InterestEngine.from_pretrained(str(tmp_path), data=dataset, dtype="bfloat16")
    InterestEngine.from_pretrained(str(tmp_path), data=dataset, refit=True)
    assert asked == ["auto", "float32", "bfloat16", "auto"]


def test_a_calibration_is_not_removed_by_an_engine_that_has_none_and_is_missed_where_it_is_lost(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_with_titles(dataset, tmp_path, monkeypatch)
    stored = {path.name: path.read_bytes() for path in tmp_path.glob("*.json")}
    again = InterestEngine.from_pretrained(str(tmp_path), data=dataset, refit=True)
    with pytest.raises(DataError, match=r"calibration\.json is of another fit.*engine\.fit\(\)"):
        again.save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.json")} == stored
    (tmp_path / CALIBRATION_FILE).unlink()
    with pytest.raises(DataError, match=r"calibration\.json is missing"):
        InterestEngine.from_pretrained(str(tmp_path), data=dataset)


class Flat:
    """Scores all items alike, and cannot be stored."""

    name = "flat"

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def scores(self, histories: Sequence[History]) -> FloatArray:
        return np.zeros((len(histories), self.n_items))


def test_a_blend_of_scorers_that_cannot_be_stored_is_not_saved_and_any_fitted_one_is(
    dataset: Dataset, tmp_path: Path
) -> None:
    engine = InterestEngine.from_pretrained(data=dataset)
    repeat = build_scorer("PersonalRepeat", dataset.log, dataset.catalog)
    unfitted = ItemToItem(Ease(77.0))
    for scorer, reason in (
        (Flat(dataset.catalog.n_items), "'flat', which cannot be stored"),
        (unfitted, "'goes with what was taken' is not fitted"),
    ):
        engine.blend = Blend((repeat, scorer), (0.4, 0.6))
        with pytest.raises(DataError, match=reason):
            engine.save_pretrained(tmp_path)
        assert not list(tmp_path.iterdir())
    engine.blend = Blend((repeat, unfitted.fit(dataset.log, dataset.catalog)), (0.4, 0.6))
    engine.save_pretrained(tmp_path)
    again = InterestEngine.from_pretrained(str(tmp_path), data=dataset)
    assert again.blend.weights == (0.4, 0.6)
    scores = [one.blend.weighted_scores(one.histories()) for one in (engine, again)]
    assert scores[0].tobytes() == scores[1].tobytes()


def test_an_engine_is_not_fitted_on_what_its_adapter_learned_from(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LanguageModel, "load", lambda name, **_: TitleModel())
    model = merged(tmp_path / "model", dataset, cutoff=str(dataset.log.timestamp.max()))
    engine = InterestEngine.from_pretrained(model, data=dataset)
    fitted = engine.settings
    with pytest.raises(DataError, match="learned from small up to"):
        engine.fit("quick", use_llm=True)
    assert engine.settings == fitted
    assert engine.forecaster.calibration is None
    engine.fit(
        "quick", use_llm=True, n_windows=60, leave_out=lambda window: False
    )  # somebody who knows says that it did not
    assert engine.forecaster.calibration is not None
