"""llmrec forget: who is meant, what goes on after an interruption, what refuses, what is said."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from llmrec import DataError, InterestEngine, forgetting, load_dataset
from llmrec.cli import app
from llmrec.data.keyed_ids import KEY_VARIABLE
from llmrec.data.row_removal import find_event_files
from llmrec.forgetting import ForgetPlaces, _Log, forget_everywhere
from tests.forgotten_people import Shop, hash_of, make_shop
from tests.test_whole_engine import table

pytest.importorskip("sqlalchemy")
pytest.importorskip("datasets")
GONE = "person-003"


@pytest.fixture(autouse=True)
def _keys_beside_their_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return make_shop(tmp_path / "shop", 0, n_people=12)


def fitted(folder: Path, events: pd.DataFrame) -> Path:
    """Write a log whose rows have what is known of items, and fit an engine on it."""
    events.to_csv(folder / "shop.csv", index=False)
    data = load_dataset(folder / "shop.csv", period="7D", noun="films")
    engine = InterestEngine.from_pretrained(data=data, model=None).fit("quick", seed=3)
    engine.save_pretrained(folder / "engine")
    return folder / "engine"


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["forget", *map(str, words)])


def test_forgetting_twice_is_harmless_and_an_unknown_id_is_an_error_with_near_ones(
    shop: Shop,
) -> None:
    user = str(shop.load().log.user_ids[3])
    assert forget_everywhere(user, shop.places).changed
    again = forget_everywhere(user, shop.places)
    assert again.changed == ()
    assert [one.split(" (")[0] for one in again.without] == [
        "engine",
        "what a fit has stored",
        "stored forecasts",
        "training examples",
        "prompts that were read",
        "events of the server",
        "log",
    ]
    assert again.unchanged == ()
    with pytest.raises(DataError, match=r"'person-x' is not known \(11 users; .*'person-"):
        forget_everywhere("person-x", shop.places)


def test_somebody_whom_artefacts_alone_still_have_is_forgotten_there(shop: Shop) -> None:
    user = str(shop.load().log.user_ids[3])
    hashed = hash_of(shop, user)
    log_alone = replace(shop.places, engines=(), stored=(), examples=(), prompts=(), database=None)
    forget_everywhere(user, log_alone)
    assert any("stored" in path for path in shop.ids_held(user, hashed))
    with pytest.raises(DataError, match="so nobody can be counted out of it: fit it again"):
        forget_everywhere(user, shop.places)
    rest = replace(shop.places, trained="fit")
    assert forget_everywhere(user, rest).changed[0].part == "all that is fitted"
    assert shop.ids_held(user, hashed) == []


@pytest.mark.parametrize(
    "name",
    [
        "llmrec.forgetting.remove_forecasts",
        "llmrec.training.example_removal.RestOfExamples.save",
        "llmrec.forgetting._Log.replace_files",
        "llmrec.forgetting._remember",
    ],
)
def test_an_interrupted_run_goes_on_when_it_is_started_again(
    shop: Shop, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = str(shop.load().log.user_ids[3])
    hashed = hash_of(shop, user)

    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(name, interrupt)
        with pytest.raises(KeyboardInterrupt):
            forget_everywhere(user, shop.places)
    assert not list(shop.folder.glob(".*.forgetting"))
    again = forget_everywhere(user, shop.places)
    assert "log" in {one.part for one in again.changed}
    assert shop.ids_held(user, hashed) == []
    assert forget_everywhere(user, shop.places).changed == ()


def test_a_run_that_ended_with_the_log_was_whole(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = str(shop.load().log.user_ids[3])
    replace_files = _Log.replace_files

    def end(log: _Log) -> None:
        replace_files(log)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(_Log, "replace_files", end)
        with pytest.raises(KeyboardInterrupt):
            forget_everywhere(user, shop.places)
    assert forget_everywhere(user, shop.places).changed == ()


def test_what_saw_the_person_is_named_fitted_again_or_refuses(tmp_path: Path) -> None:
    engine, data = fitted(tmp_path, table()), tmp_path / "shop.csv"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    refused = run(GONE, "--data", data, "--model", engine, "--trained", "refuse")
    assert isinstance(refused.exception, DataError)
    assert "nothing is forgotten: forecaster PretrainedForecaster; " in str(refused.exception)
    for path, content in before.items():
        assert path.read_bytes() == content
    named = run(GONE, "--data", data, "--model", engine)
    assert "Has seen the person, and stays\n  forecaster Pretrained" in named.stdout
    twice = run(GONE, "--data", data, "--model", engine)
    assert "it saw 1 people who were forgotten since; a fit on what is left" in twice.stdout
    again = run("person-004", "--data", data, "--model", engine, "--trained", "fit", "--json")
    told = json.loads(again.stdout)
    assert [one["part"] for one in told["changed"]] == ["all that is fitted", "log"]
    assert told["unchanged"] == []
    rest = tmp_path / "rest"
    rest.mkdir()
    events = table()
    expected = fitted(rest, events[~events["user_id"].isin([GONE, "person-004"])])
    for path in expected.rglob("*.safetensors"):
        assert (engine / path.relative_to(expected)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_an_engine_whose_items_would_be_others_has_to_be_fitted(tmp_path: Path) -> None:
    events = table()
    own = events["user_id"] == GONE
    events.loc[events["item_id"] == "article-003", "title"] = None
    events.loc[own & (events["item_id"] == "article-003"), "title"] = "What only they call it"
    engine, data = fitted(tmp_path, events), tmp_path / "shop.csv"
    content = data.read_bytes()
    refused = run(GONE, "--data", data, "--model", engine)
    assert "has other items, or other events of others" in str(refused.exception)
    assert data.read_bytes() == content
    assert run(GONE, "--data", data, "--model", engine, "--trained", "fit").exit_code == 0
    held = b"".join(path.read_bytes() for path in engine.rglob("*") if path.is_file())
    assert b"What only they" not in held


def test_the_certificate_is_written_and_says_what_was_looked_at(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "shop.csv", index=False)
    out = tmp_path / "certificate.json"
    shown = run(GONE, "--data", tmp_path / "shop.csv", "--out", out)
    assert shown.exit_code == 0, shown.output
    told = json.loads(out.read_text())
    assert told["person"].startswith("keyed-")
    (row,) = told["changed"]
    assert (row["counted"], row["before"], row["after"]) == ("rows", 2400, 2360)
    assert GONE not in out.read_text()
    assert f"log ({tmp_path / 'shop.csv'}): 2,400 rows, 2,360 now" in shown.stdout


def test_what_is_not_there_is_named_before_anything_is_done(tmp_path: Path) -> None:
    data = tmp_path / "shop.csv"
    table().to_csv(data, index=False)
    content = data.read_bytes()
    for option, what in (
        ("--serve-database", "give the database of `llmrec serve`"),
        ("--model", "it is no engine's folder"),
        ("--examples", "is no manifest of examples"),
    ):
        refused = run(GONE, "--data", data, option, tmp_path / "nowhere")
        assert what in str(refused.exception)
    assert run(GONE, "--data", data, "--trained", "drop").exit_code == 2
    assert data.read_bytes() == content


def test_the_log_of_an_installed_package_stays_and_an_engine_of_it_is_refused() -> None:
    with pytest.raises(DataError, match="copy the log to a folder of your own"):
        forget_everywhere("u000000", ForgetPlaces("synthetic", engines=(Path("engine"),)))


def test_rows_that_somebody_writes_meanwhile_are_not_lost(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = str(shop.load().log.user_ids[3])
    source, remember = Path(shop.places.data), forgetting._remember
    path = next(file for file in find_event_files(source, {})).path

    def append(*given: Any) -> None:
        remember(*given)
        os.utime(path)  # as if somebody had written to it

    with monkeypatch.context() as patched:
        patched.setattr(forgetting, "_remember", append)
        with pytest.raises(DataError, match="changed while it was read"):
            forget_everywhere(user, shop.places)
    assert "log" in {one.part for one in forget_everywhere(user, shop.places).changed}
