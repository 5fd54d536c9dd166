"""Engines' folders: whose log an engine is of, and which files it cannot do without."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmrec import Catalog, DataError, Dataset, Interactions, InterestEngine
from llmrec.data.provenance import events_fingerprint
from llmrec.data.readers import read_table
from llmrec.engine_folder import EngineSettings
from llmrec.errors import LlmrecError
from tests.test_engine import frame

SAVED = Path(__file__).parent / "saved" / "v0_1"
PARTS = (
    "adapter/adapter.json",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "adapter/readout.safetensors",
    "adapter/titles.safetensors",
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work beside copies of a base model, of its engine with an adapter, and of their log."""
    for name in ("base", "engine"):
        shutil.copytree(SAVED / name, tmp_path / name)
    shutil.copy(SAVED / "log.parquet", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def other() -> Dataset:
    """Another log of the same categories."""
    return read_table(frame(), name="shop", period="7D")


def open_engine(folder: str, data: Dataset | str, **options: object) -> InterestEngine:
    return InterestEngine.from_pretrained(
        folder, data=data, describe=False, device="cpu", **options
    )


def renamed(dataset: Dataset) -> Dataset:
    """Give the same log with a category called differently."""
    names = tuple("Peace" if name == "War" else name for name in dataset.catalog.categories)
    assert names != dataset.catalog.categories
    return replace(dataset, catalog=replace(dataset.catalog, categories=names))


def assert_neutral(engine: InterestEngine, plain: InterestEngine) -> None:
    """Check that an engine forecasts and ranks as its base model does without it."""
    for user in ("u001", "u007"):
        one, two = engine.forecast(user), plain.forecast(user)
        assert one.category_weights.tobytes() == two.category_weights.tobytes()
        assert one.concentration == two.concentration
        assert one.source.how == "fallback"
        lists = [
            [(item.item_id, item.score) for item in found.recommend(user, 5)]
            for found in (engine, plain)
        ]
        assert lists[0] == lists[1]


def test_an_engine_of_another_log_says_so_once_and_is_neutral(place: Path, other: Dataset) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        engine = open_engine("engine", other)
    (said,) = [str(one.message) for one in caught if one.category is UserWarning]
    assert "engine engine was fitted on 'log', not on this log ('shop')" in said
    assert "without its counting, blend, tilt, calibration, share of titles" in said
    assert_neutral(engine, open_engine("base", other))
    why = engine.forecast("u001").source.why
    assert why.startswith("the engine was ")
    assert why.removeprefix("the engine was ") in said
    assert engine.forecaster.model.adapter == "engine/adapter"  # its categories are those here
    assert engine.settings.dataset == "shop"
    assert engine.settings.titles == 0


def test_an_adapter_of_other_categories_is_left_out(place: Path, other: Dataset) -> None:
    fewer = renamed(other)
    with pytest.warns(UserWarning, match="fitted on 'log', .* tilt, adapter, calibration"):
        engine = open_engine("engine", fewer)
    assert not engine.forecaster.model.adapter
    assert_neutral(engine, open_engine("base", fewer))
    with pytest.warns(UserWarning, match="without its adapter"):
        again = open_engine("engine", fewer, refit=True)
    assert_neutral(again, open_engine("base", fewer, refit=True))


def test_after_a_fit_an_engine_is_of_the_log_that_it_was_fitted_on(
    place: Path, other: Dataset
) -> None:
    with pytest.warns(UserWarning, match="fitted on 'log'"):
        engine = open_engine("engine", other)
    engine.fit("quick", use_llm=True, n_windows=60).save_pretrained("mine")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        mine = open_engine("mine", other)
    assert mine.settings == engine.settings
    assert mine.forecaster.calibration is not None
    one, two = mine.forecast("u001"), engine.forecast("u001")
    assert one.category_weights.tobytes() == two.category_weights.tobytes()
    assert "fitted on" not in one.source.why


def test_nothing_of_another_log_is_saved_before_a_fit(place: Path, other: Dataset) -> None:
    with pytest.warns(UserWarning, match="fitted on 'log'"):
        open_engine("engine", other).save_pretrained("mine")
    assert not Path("mine/calibration.json").exists()
    assert EngineSettings.load(Path("mine/engine.json")).is_of(other)
    with pytest.raises(DataError, match=r"calibration\.json is of another fit"), pytest.warns():
        open_engine("engine", other).save_pretrained("engine")


def test_a_log_with_other_periods_or_other_categories_is_another_one(place: Path) -> None:
    own = open_engine("engine", "log.parquet").dataset
    with pytest.warns(UserWarning, match="fitted on 'log' in periods of 28D, not of 14D"):
        open_engine("engine", replace(own, period="14D"))
    with pytest.warns(UserWarning, match="fitted on 'log' with other categories"):
        open_engine("engine", renamed(own))


def test_another_log_of_the_same_name_is_another_one(place: Path, other: Dataset) -> None:
    with pytest.warns(UserWarning, match="fitted on another log called 'log'"):
        open_engine("engine", replace(other, name="log"))


def test_an_engine_that_does_not_say_what_it_was_fitted_on_is_of_no_log(
    place: Path, other: Dataset
) -> None:
    Path("mine").mkdir()
    Path("mine/engine.json").write_text('{"model": "base", "blend": {"PersonalRepeat": 1}}')
    with pytest.warns(UserWarning, match="fitted on a log that its settings do not name"):
        assert_neutral(open_engine("mine", other), open_engine("base", other))


def test_a_log_that_grew_is_the_same_one_whatever_its_name(place: Path, other: Dataset) -> None:
    fitted = open_engine("base", other)
    fitted.save_pretrained("mine")
    later = pd.DataFrame(
        {
            "user_id": ["u001", "zoe"],
            "item_id": ["a new item", "i003"],
            "timestamp": other.log.timestamp.max() + np.timedelta64(5, "D"),
            "title": ["A new item", "Title 3"],
            "categories": ["War", frame()["categories"][frame()["item_id"] == "i003"].iloc[0]],
        }
    )
    grown = read_table(pd.concat([frame(), later]), name="shop of today", period="7D")
    message = "does not know items that came after its fit: 1 of 2402 events"
    with pytest.warns(UserWarning, match=message) as caught:
        engine = open_engine("mine", grown)
    assert len([one for one in caught if one.category is UserWarning]) == 1
    assert engine.settings == fitted.settings
    assert engine.history("zoe").n_events == 1
    changed = read_table(frame().drop(index=3), name="shop", period="7D")
    with pytest.warns(UserWarning, match="before the past of this one changed"):
        open_engine("mine", changed)


def test_a_fingerprint_is_of_the_events_and_not_of_what_else_the_catalog_lists() -> None:
    def print_of(item_ids: list[str], taken: list[str]) -> str:
        items = Catalog.from_frame(pd.DataFrame({"item_id": item_ids, "categories": "X"}))
        rows = pd.DataFrame({"user_id": "u", "item_id": taken, "timestamp": "2020-01-01"})
        return events_fingerprint(Interactions.from_frame(rows).align_to(items))

    assert print_of(["a", "c"], ["a", "c"]) == print_of(["b", "c", "a", "d"], ["a", "c"])
    assert print_of(["a", "b", "c"], ["a", "c"]) != print_of(["a", "b", "c"], ["a", "b"])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("saved_again", [False, True], ids=["of 0.1", "saved again"])
def test_an_engine_that_lost_a_file_is_refused_by_its_name(
    place: Path, part: str, saved_again: bool
) -> None:
    if saved_again:
        open_engine("engine", "log.parquet").save_pretrained("again")
    folder = "again" if saved_again else "engine"
    (Path(folder) / part).unlink()
    with pytest.raises(LlmrecError, match=f"{Path(part).name} is missing"):
        open_engine(folder, "log.parquet")
    with pytest.raises(LlmrecError, match=f"{Path(part).name} is missing"):
        open_engine(folder, "log.parquet", refit=True)


def test_an_engine_lists_its_files(place: Path) -> None:
    open_engine("engine", "log.parquet").save_pretrained("again")
    stored = json.loads(Path("again/engine.json").read_text())
    assert {*PARTS, "calibration.json", "catalog.parquet", "population.parquet"} < {
        *stored["parts"]
    }
    files = {path for path in Path("again").rglob("*") if path.suffix != ".md" and path.is_file()}
    assert {Path("again") / part for part in stored["parts"]} == files - {Path("again/engine.json")}
    for part, stored_hash in stored["parts"].items():
        assert hashlib.sha256((Path("again") / part).read_bytes()).hexdigest() == stored_hash


def test_an_adapter_replaces_the_one_in_the_folder_and_is_not_merged_with_it(place: Path) -> None:
    engine = open_engine("engine", "log.parquet")
    engine.save_pretrained("again")
    expected = {path: path.read_bytes() for path in Path("again").rglob("*") if path.is_file()}
    Path("again/adapter/extra.safetensors").write_bytes(b"of another adapter")
    engine.save_pretrained("again")
    for _ in range(2):
        found = {path: path.read_bytes() for path in Path("again").rglob("*") if path.is_file()}
        assert found == expected
        open_engine("again", "log.parquet").save_pretrained("again")  # over its own adapter


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("model", 5, "model is 5; it should be text"),
        ("budget", "x", "budget is 'x'; it should be a whole number"),
        ("budget", True, "budget is True; it should be a whole number"),
        ("strength", "much", "strength is 'much'; it should be a number"),
        ("titles", float("nan"), "titles is nan; it should be a number"),
        ("counting", [], r"counting is \[\]; it should be an object"),
        ("counting", {"decay": "x"}, r"counting\.decay is 'x'; it should be a number"),
        ("counting", {"mix": "none"}, r"counting\.mix is 'none'; it should be 'last period' or"),
        ("counting", {"spread": [0.1, "x"]}, r"counting\.spread\[1\] is 'x'; it should be"),
        ("counting", {"spread": [0.1, 0.2, 0.3]}, "takes from 1 to 3"),
        ("counting", {"fitted": 1}, "unknown key 'fitted'"),
        ("blend", "PersonalRepeat", "blend is 'PersonalRepeat'; it should be an object"),
        ("blend", {"PersonalRepeat": "x"}, r"blend\.PersonalRepeat is 'x'; it should be a number"),
        ("blend", {"PersonalRepeat": -1}, r"blend\.PersonalRepeat is -1; it should be at least 0"),
        ("adapter", 5, "adapter is 5; it should be text"),
        ("adapter", "../adapter", r"adapter is '\.\./adapter'; it should be a path"),
        ("adapter", "/adapter", "adapter is '/adapter'; it should be a path"),
        ("adapter", "C:\\adapter", "adapter is .*; it should be a path"),
        ("parts", "abc", "parts is 'abc'; it should be an object"),
        ("parts", {"a": 5}, r"parts\.a is 5; it should be text"),
        (
            "parts",
            ["a", "adapter/../../b"],
            r"parts\.adapter/\.\./\.\./b is 'adapter.*'; it should be a path",
        ),
        ("parts", {"..\\b": ""}, r"parts\..* is .*; it should be a path inside the folder"),
        ("format", 99, r"format 99, written by llmrec .*pip install --upgrade llmrec"),
        ("fitted_before", "some day", "some day"),
        ("cutoff", "some day", "some day"),
        ("dates", "year-first", "dates is 'year-first'; it should be '' or 'day-first' or"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_file_and_key(
    tmp_path: Path, field: str, value: object, reason: str
) -> None:
    path = tmp_path / "engine.json"
    path.write_text(json.dumps({field: value}))
    with pytest.raises(DataError, match=f"^{path} is no engine's settings: .*{reason}"):
        EngineSettings.load(path)


def test_an_engine_that_lost_its_calibration_warns_and_says_so_in_its_forecasts(
    place: Path,
) -> None:
    Path("engine/calibration.json").unlink()
    with pytest.warns(UserWarning, match=r"engine/calibration\.json is missing: without its"):
        engine = open_engine("engine", "log.parquet")
    assert engine.forecast(engine.dataset.log.user_ids[0]).source.how == "fallback"
    assert "calibration.json is missing" in engine.forecast("u001").source.why
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        open_engine("engine", "log.parquet", refit=True)  # which asks for no calibration


@pytest.mark.parametrize("left", ["calibration.json", "adapter/adapter.json"])
def test_an_engine_that_lost_its_settings_is_told_which_file_is_missing(
    place: Path, other: Dataset, left: str
) -> None:
    Path("engine/engine.json").unlink()
    shutil.copytree("engine", "only")
    for file in [file for file in Path("only").rglob("*") if file.is_file()]:
        if file != Path("only") / left:
            file.unlink()
    for folder in ("engine", "only"):
        with pytest.raises(DataError, match=rf"{folder}/engine\.json is missing"):
            open_engine(folder, other)


def test_weights_that_are_all_0_list_what_is_popular_and_say_so(
    place: Path, other: Dataset
) -> None:
    before = other.log.timestamp.max() + np.timedelta64(1, "ms")
    settings = EngineSettings(
        model="base",
        blend={"PersonalRepeat": 0.0, "EaseByDays": 0.0},
        dataset="shop",
        period=other.period,
        data=events_fingerprint(other.log),
        fitted_before=str(before),
    )
    Path("mine").mkdir()
    settings.save(Path("mine/engine.json"))  # of format 1
    engine = open_engine("mine", other)
    item = engine.session("u001", strength=0).recommend(1)[0]
    assert list(item.explanation.scorer_parts) == ["popular in the last 28 days"]
    recent = other.log.timestamp >= engine.cutoff - np.timedelta64(28, "D")
    counts = np.bincount(other.log.item_idx[recent])
    assert counts[other.catalog.item_index(item.item_id)] == counts.max()


def test_somebody_whose_events_all_come_later_is_known_and_has_no_history_yet(
    place: Path, other: Dataset
) -> None:
    first = other.log.timestamp[other.log.user_offsets[:-1]]
    late, cutoff = other.log.user_ids[first.argmax()], first.max()
    engine = open_engine("base", other, cutoff=cutoff)
    with pytest.raises(DataError, match=f"{late!r} has no event before the cutoff {cutoff}"):
        engine.history(late)
    with pytest.raises(DataError, match=f"{late!r} has no event before the cutoff {cutoff}"):
        engine.forecast(late)
    with pytest.raises(DataError, match="'nobody' is not known"):
        engine.forecast("nobody")


def test_a_calibration_serves_another_precision_only_if_that_was_measured(place: Path) -> None:
    pytest.importorskip("openvino", reason="pip install 'llmrec[openvino]'")
    same = open_engine("engine", "log.parquet", backend="openvino")
    assert same.language is not None
    assert same.language.calibration is not None
    options = {"backend": "openvino", "quantize": "8bit"}
    with pytest.warns(UserWarning, match=r"not of these weights \(.* in openvino 8bit\).*'torch'"):
        other = open_engine("engine", "log.parquet", **options)
    assert other.language is not None
    assert other.language.calibration is None
    path = place / "engine" / "calibration.json"
    values = json.loads(path.read_text())
    values |= {"version": "0.4.0", "equivalents": {other.language.model.fingerprint: 0.0005}}
    path.write_text(json.dumps(values))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        measured = open_engine("engine", "log.parquet", **options)
    assert measured.language is not None
    assert measured.language.calibration is not None
    one, two = measured.forecast("u001"), same.forecast("u001")
    np.testing.assert_allclose(one.category_weights, two.category_weights, atol=0.02)
    # An engine that was calibrated in 8 bits is loaded in 8 bits.
    settings = EngineSettings.load(place / "engine" / "engine.json")
    replace(settings, precision=other.language.model.precision).save(
        place / "engine" / "engine.json"
    )
    again = open_engine("engine", "log.parquet").forecast("u001")
    np.testing.assert_array_equal(again.category_weights, one.category_weights)
