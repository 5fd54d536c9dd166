"""Engines that need nothing but their folder: the same answers, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmrec import DataError, Dataset, InterestEngine
from llmrec.data.readers import read_table
from llmrec.data.stored import VALUES_FILE
from llmrec.engine_folder import (
    CATALOG_FILE,
    FORECAST_FOLDER,
    POPULATION_FILE,
    RANKING_FOLDER,
    SETTINGS_FILE,
)
from llmrec.engine_settings import FORMAT
from tests.saved_settings import change_settings
from tests.worlds import CATEGORIES, START

ROOT = Path(__file__).parents[1]
KINDS = [("7D", "quick"), ("10 events", "quick"), ("7D", "standard"), ("10 events", "standard")]
USERS = ("person-003", "person-017", "person-042")


def table() -> pd.DataFrame:
    """60 people with a taste each, in a log whose ids and titles occur nowhere by chance."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        taste = rng.dirichlet(np.ones(5))
        times = rng.choice(70 * 24 * 3600, 40, replace=False).astype("timedelta64[s]")
        for time in times:
            item = int(rng.choice(5, p=taste)) + 5 * int(rng.integers(5))
            row = (f"person-{user:03d}", f"article-{item:03d}", START + time)
            rows.append((*row, f"Long title {item}", CATEGORIES[item % 5]))
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "title", "categories"])


@cache
def dataset(period: str = "7D") -> Dataset:
    return read_table(table(), name="small", period=period)


@cache
def fitted(period: str = "7D", effort: Any = "quick") -> InterestEngine:
    return InterestEngine.from_pretrained(data=dataset(period), model=None).fit(effort, seed=3)


def events_of(data: Dataset, user_id: str) -> pd.DataFrame:
    """Cut a person's events from a log."""
    user = data.log.user_index(user_id)
    own = slice(*data.log.user_offsets[user : user + 2])
    items = data.log.item_ids[data.log.item_idx[own]]
    return pd.DataFrame(
        {"user_id": user_id, "item_id": items, "timestamp": data.log.timestamp[own]}
    )


def answers(engine: InterestEngine, people: Sequence[Any]) -> list[Any]:
    """Give forecasts and lists to the bit, as plain values."""
    found = []
    for forecast, items in zip(
        engine.forecast_many(people), engine.recommend_many(people, k=25), strict=True
    ):
        weights = [*forecast.category_weights.tolist(), float(forecast.concentration)]
        listed = [(item.item_id, item.title, item.score.hex(), item.why) for item in items]
        found.append([[weight.hex() for weight in weights], forecast.description, listed])
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fitted().save_pretrained(tmp_path / "engine")
    return tmp_path / "engine"


def load(folder: Path, **options: Any) -> InterestEngine:
    return InterestEngine.from_pretrained(str(folder), model=None, **options)


def files_of(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize(("period", "effort"), KINDS)
def test_an_engine_without_its_log_answers_to_the_bit_as_in_memory(
    period: str, effort: str, tmp_path: Path
) -> None:
    engine = fitted(period, effort)
    engine.save_pretrained(tmp_path)
    again, data = load(tmp_path), dataset(period)
    assert not len(again.dataset.log)
    assert again.settings == engine.settings.without_model()
    frames = [events_of(data, user) for user in USERS]
    expected = answers(engine, USERS)
    assert answers(again, frames) == expected
    assert answers(load(tmp_path, data=data), USERS) == expected
    histories = [
        again.dataset.new_user_history(frame, again.cutoff, is_clean=True) for frame in frames
    ]
    assert answers(again, histories) == expected


_SCRIPT = """
import json, sys
from tests.test_whole_engine import *
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
frames = [events_of(dataset(), user) for user in USERS]
print(json.dumps(answers(load(folder), frames)))
fitted("7D", "standard").save_pretrained(out)
"""


def test_another_process_gives_the_same_answers_and_the_same_seed_the_same_bytes(
    tmp_path: Path,
) -> None:
    engine = fitted("7D", "standard")
    engine.save_pretrained(tmp_path / "one")
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path / "one"), str(tmp_path / "two")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == answers(engine, USERS)
    one, two = files_of(tmp_path / "one"), files_of(tmp_path / "two")
    assert one == two


def test_a_saved_engine_keeps_its_cutoff_unless_its_log_goes_on_after_it(tmp_path: Path) -> None:
    data, folder = dataset(), tmp_path / "engine"
    later = data.log.timestamp.max() + np.timedelta64(5, "D")
    engine = InterestEngine.from_pretrained(data=data, model=None, cutoff=later).fit("quick")
    engine.save_pretrained(folder)
    frames, expected = [events_of(data, user) for user in USERS], answers(engine, USERS)
    for again, people in ((load(folder), frames), (load(folder, data=data), USERS)):
        assert again.cutoff == later
        assert answers(again, people) == expected
        again.save_pretrained(tmp_path / "again")
        assert files_of(tmp_path / "again") == files_of(folder)
    next_day = later + np.timedelta64(1, "D")
    assert load(folder, data=data, cutoff=next_day).cutoff == next_day
    for time, cutoff in ((later - 1, later), (later, later + 1)):
        event = table().head(1).assign(timestamp=time)
        grown = read_table(pd.concat([table(), event]), name="small", period="7D")
        assert load(folder, data=grown).cutoff == cutoff
    fewer = read_table(table().drop(index=3), name="small", period="7D")
    with pytest.warns(UserWarning, match="before the past of this one changed"):
        assert load(folder, data=fewer).cutoff == fewer.log.timestamp.max() + 1


def test_a_folder_that_does_not_say_its_cutoff_begins_where_its_fit_ended(folder: Path) -> None:
    def forget_times(values: dict[str, Any]) -> None:
        del values["cutoff"], values["dates"]

    settings = change_settings(folder / SETTINGS_FILE, forget_times)
    for again in (load(folder), load(folder, data=dataset())):
        assert str(again.cutoff) == settings["fitted_before"]


@pytest.mark.parametrize(
    ("written", "is_day_first", "day"),
    [("%d/%m/%Y", True, "2020-01-02"), ("%m/%d/%Y", False, "2020-02-01")],
)
def test_a_saved_engine_reads_texts_of_times_in_the_order_of_its_log(
    written: str, is_day_first: bool, day: str, tmp_path: Path
) -> None:
    times = table()["timestamp"].dt.strftime(f"{written} %H:%M:%S")
    data = read_table(table().assign(timestamp=times), name="small", period="7D")
    InterestEngine.from_pretrained(data=data, model=None).save_pretrained(tmp_path)
    engine = load(tmp_path)
    assert data.log.day_first == engine.dataset.log.day_first == is_day_first
    new = pd.DataFrame({"item_id": ["article-001"], "timestamp": ["02/01/2020"]})
    history = engine.dataset.new_user_history(new, engine.cutoff)
    assert history.log.timestamp.tolist() == [np.datetime64(day, "ms").item()]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def swap_a_bit(path: Path) -> None:
    found = bytearray(path.read_bytes())
    found[len(found) // 2] ^= 1
    path.write_bytes(bytes(found))


@pytest.mark.parametrize("damage", [Path.unlink, cut, swap_a_bit])
def test_a_part_that_is_missing_cut_off_or_changed_is_refused_by_its_name(
    folder: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    parts = json.loads((folder / SETTINGS_FILE).read_text())["parts"]
    assert {*parts, SETTINGS_FILE} == set(files_of(folder))
    for place, part in enumerate(parts):
        broken = tmp_path / f"broken{place}"
        shutil.copytree(folder, broken)
        damage(broken / part)
        with pytest.raises(DataError, match=f"broken{place}/{part}"):
            load(broken)


def test_a_part_of_another_engine_is_refused_by_its_name(folder: Path, tmp_path: Path) -> None:
    fitted("10 events").save_pretrained(tmp_path / "other")
    ours, theirs, tried = files_of(folder), files_of(tmp_path / "other"), 0
    for part in (set(ours) & set(theirs)) - {SETTINGS_FILE}:
        if ours[part] == theirs[part]:
            continue
        (folder / part).write_bytes(theirs[part])
        with pytest.raises(DataError, match=f"{part} is not the file that was saved"):
            load(folder)
        (folder / part).write_bytes(ours[part])
        tried += 1
    assert tried > 2
    load(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": FORMAT + 1}, rf"format {FORMAT + 1}, .* up to format {FORMAT}: pip install"),
        ({"format": "2"}, "format is '2'; it should be a whole number"),
        ({"parts": {}}, "one of them changed"),
        ({"strength": 0.123}, "its 'hash' is not that of its other values"),
        ({"hash": "0" * 64}, "one of them changed"),
        ({"strength": "much"}, "strength is 'much'"),
        ({"colour": 1}, "unknown key 'colour'"),
    ],
)
def test_settings_that_were_changed_are_refused(
    folder: Path, change: dict[str, Any], reason: str
) -> None:
    path = folder / SETTINGS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=rf"engine\.json.*{reason}"):
        load(folder)


def test_settings_without_the_hash_of_a_part_are_refused(folder: Path) -> None:
    change_settings(folder / SETTINGS_FILE, lambda values: values["parts"].clear())
    with pytest.raises(DataError, match=r"engine\.json.*has no hash of"):
        load(folder)


def test_what_changed_is_loaded_with_a_warning_where_nobody_wants_it_verified(folder: Path) -> None:
    path = folder / SETTINGS_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"strength": 0.125}))
    part = folder / RANKING_FOLDER / VALUES_FILE
    part.write_bytes(part.read_bytes() + b" ")
    with pytest.raises(DataError, match=r"engine\.json"):
        load(folder)
    with pytest.warns(UserWarning, match="was not compared with the hashes"):
        assert load(folder, verify=False).settings.strength == 0.125


@pytest.mark.parametrize(
    "part",
    [
        CATALOG_FILE,
        POPULATION_FILE,
        f"{FORECAST_FOLDER}/{VALUES_FILE}",
        f"{RANKING_FOLDER}/{VALUES_FILE}",
    ],
)
def test_an_engine_that_lost_its_settings_is_refused_by_whatever_part_is_left(
    folder: Path, tmp_path: Path, part: str
) -> None:
    (tmp_path / "left" / part).parent.mkdir(parents=True)
    shutil.copy(folder / part, tmp_path / "left" / part)
    (folder / SETTINGS_FILE).unlink()
    for broken in (folder, tmp_path / "left"):
        with pytest.raises(DataError, match=r"engine\.json is missing, though"):
            load(broken, data=dataset())


def test_a_refit_of_an_engine_without_its_log_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"holds no log, and refit=True .* give it with data="):
        load(folder, refit=True)
    assert load(folder, refit=True, data=dataset()).settings.effort == "quick"


def test_settings_that_were_cut_off_are_refused(folder: Path) -> None:
    cut(folder / SETTINGS_FILE)
    with pytest.raises(DataError, match=r"engine\.json is no engine's settings"):
        load(folder)


def test_files_of_an_engine_that_was_in_the_folder_before_are_removed(tmp_path: Path) -> None:
    fitted("7D", "standard").save_pretrained(tmp_path / "engine")
    (tmp_path / "engine" / "notes.txt").write_text("mine")
    fitted().save_pretrained(tmp_path / "engine")
    fitted().save_pretrained(tmp_path / "alone")
    assert files_of(tmp_path / "engine") == files_of(tmp_path / "alone") | {"notes.txt": b"mine"}
    fitted().save_pretrained(tmp_path / "engine", with_catalog=False)
    assert "catalog.parquet" not in files_of(tmp_path / "engine")


def test_an_engine_without_its_catalog_tells_no_id_and_no_title(tmp_path: Path) -> None:
    engine = fitted("7D", "standard")
    engine.save_pretrained(tmp_path, with_catalog=False)
    for name, content in files_of(tmp_path).items():
        for text in (b"person-", b"article-", b"Long title"):
            assert text not in content, name
    with pytest.raises(DataError):
        load(tmp_path)  # there is no log of this name
    assert answers(load(tmp_path, data=dataset()), USERS) == answers(engine, USERS)


def test_a_person_without_events_gets_a_forecast_and_a_list(folder: Path) -> None:
    engine = load(folder)
    nothing = pd.DataFrame({"item_id": [], "timestamp": []})
    late = pd.DataFrame({"item_id": ["article-001"], "timestamp": [engine.cutoff]})
    for frame in (nothing, late):
        assert engine.forecast(frame).category_weights.sum() == pytest.approx(1)
        assert len(engine.recommend(frame, k=4)) == 4
    assert [item.item_id for item in engine.recommend(nothing)] == [
        item.item_id for item in engine.recommend(late)
    ]


def test_events_of_unknown_items_are_counted_and_left_out(folder: Path) -> None:
    engine, known = load(folder), events_of(dataset(), "person-003")
    with pytest.warns(UserWarning, match=r"2 of 42 events are of items that the engine does not"):
        found = engine.forecast(pd.concat([known, known.head(2).assign(item_id=["x", "y"])]))
    assert found.category_weights.tobytes() == engine.forecast(known).category_weights.tobytes()
    with pytest.raises(DataError, match="the frame of a new user"):
        engine.forecast(known.assign(item_id="x"))


def test_events_at_or_after_the_cutoff_change_nothing(folder: Path) -> None:
    engine, known = load(folder), events_of(dataset(), "person-003")
    later = known.head(3).assign(timestamp=engine.cutoff + np.timedelta64(1, "h"))
    assert answers(engine, [pd.concat([known, later])]) == answers(engine, [known])


def test_an_engine_without_a_log_knows_no_ids_and_is_not_fitted(folder: Path) -> None:
    engine = load(folder)
    with pytest.raises(DataError, match="give the person's events"):
        engine.forecast("person-003")
    with pytest.raises(DataError, match="holds no log to fit on"):
        engine.fit("quick")
    with pytest.raises(DataError, match="beyond the cutoff"):
        load(folder, cutoff=engine.cutoff - np.timedelta64(1, "D"))


def test_one_person_is_answered_as_in_a_batch(folder: Path) -> None:
    engine = load(folder)
    frames = [events_of(dataset(), user) for user in USERS]
    assert answers(engine, frames) == [answers(engine, [frame])[0] for frame in frames]


@pytest.mark.parametrize("is_installed", [True, False])
def test_without_a_language_model_descriptions_are_made_of_claims(
    monkeypatch: pytest.MonkeyPatch, is_installed: bool
) -> None:
    monkeypatch.setattr("llmrec.engine_config.is_llm_installed", lambda: is_installed)
    options: dict[str, Any] = {"model": None} if is_installed else {}
    engine = InterestEngine.from_pretrained(data=dataset(), **options)
    assert engine.language is None
    assert engine.forecast("person-003").description
    assert all(item.why for item in engine.recommend("person-003", k=3))
    with pytest.raises(DataError, match="no language model that could reword"):
        engine.recommend("person-003", k=3, model_words=True)
    with pytest.raises(DataError, match="no language model"):
        engine.fit("quick", use_llm=True)


def test_a_choice_of_model_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="model is 'gpt'"):
        InterestEngine.from_pretrained(data=dataset(), model="gpt")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="device, and model=None"):
        InterestEngine.from_pretrained(data=dataset(), model=None, device="cpu")


@pytest.mark.parametrize("option", ["dtype", "colour"])
def test_options_of_a_model_are_refused_by_an_engine_without_one(folder: Path, option: str) -> None:
    for data in (None, dataset()):
        with pytest.raises(TypeError, match=rf"{option}, and .*engine\.json names no model"):
            InterestEngine.from_pretrained(str(folder), data=data, **{option: "float32"})


@pytest.mark.slow
def test_an_engine_of_nets_and_trees_answers_the_same_without_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    from llmrec.forecasters import next_item

    for name in next_item.DEFAULT_STEPS:
        monkeypatch.setitem(next_item.DEFAULT_STEPS, name, 5)
    engine = InterestEngine.from_pretrained(data=dataset(), model=None).fit("best")
    engine.save_pretrained(tmp_path)
    frames = [events_of(dataset(), user) for user in USERS]
    assert answers(load(tmp_path), frames) == answers(engine, USERS)


def test_an_engine_in_the_current_folder_is_loaded_and_saved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    engine = load(Path())
    assert engine.settings == fitted().settings.without_model()
    engine.save_pretrained(".")
    assert load(Path()).settings == engine.settings
    assert Path.cwd().exists()


def test_saving_keeps_the_rights_of_the_folder_and_what_others_put_there(folder: Path) -> None:
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("kept")
    folder.chmod(0o700)
    fitted().save_pretrained(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "notes" / "mine.txt").read_text() == "kept"


def test_broken_settings_are_saved_over(folder: Path) -> None:
    (folder / SETTINGS_FILE).write_text("{")
    fitted().save_pretrained(folder)
    load(folder)


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EBUSY])
def test_a_folder_that_cannot_be_exchanged_gets_its_files_one_by_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def refuse(*given: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("llmrec.data.files._exchange", refuse)
    (folder / "mine.txt").write_text("kept")
    fitted().save_pretrained(folder)
    load(folder)
    assert (folder / "mine.txt").read_text() == "kept"
    assert not list(folder.parent.glob(".*"))
