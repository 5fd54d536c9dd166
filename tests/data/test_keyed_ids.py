"""Ids of people are hashed with a key that lies beside their log."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmrec import DataError, Dataset, load_dataset
from llmrec.data.embedded import cache_root
from llmrec.data.keyed_ids import KEY_VARIABLE, key_of, known_keys
from llmrec.data.periods import make_histories
from llmrec.evaluation.forecast_store import filter_forecasts, load_forecasts, save_forecasts
from llmrec.evaluation.track_record import score_forecasts
from llmrec.forecasters.counting import DecayedDirichlet
from tests.test_engine import frame


@pytest.fixture(autouse=True)
def _keys_beside_their_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shop(tmp_path: Path) -> Dataset:
    (tmp_path / "log").mkdir()
    frame(n_users=6).to_csv(tmp_path / "log" / "events.csv", index=False)
    return load_dataset(tmp_path / "log" / "events.csv", period="7D")


def store(folder: Path, data: Dataset) -> None:
    cutoff = data.log.timestamp.min() + np.timedelta64(28, "D")
    histories = make_histories(data.log, data.catalog, data.period, cutoff)
    save_forecasts(folder, data, histories, DecayedDirichlet().forecast(histories))


def test_the_key_is_a_private_file_beside_the_log_and_stays_the_same(shop: Dataset) -> None:
    key = key_of(shop)
    assert shop.source is not None
    assert key.path == shop.source.with_name(".events.csv.llmrec-id-key")
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    assert key_of(shop) == key
    assert "secret" not in repr(key)
    assert [path.name for path in key.path.parent.iterdir() if "key." in path.name] == []


def test_the_key_of_a_folder_is_in_it_and_that_of_a_frame_in_the_cache(shop: Dataset) -> None:
    assert shop.source is not None
    folder = load_dataset(shop.source.parent, period="7D")
    assert key_of(folder).path == shop.source.parent / ".llmrec-id-key"
    assert load_dataset(shop.source.parent).log.fingerprint == folder.log.fingerprint
    made = replace(folder, source=None, name="a/b")
    assert key_of(made).path == cache_root() / "id-keys" / "a%2Fb.key"


def test_an_id_has_one_hash_with_a_key_and_another_with_each_other_key(
    shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of(shop)
    assert key.hash(7) == key.hash("7") == key.hash(7.0) != key.hash("8")
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "elsewhere" / "ids.key"))
    other = key_of(shop)
    assert other.name != key.name
    assert other.hash("7").split("-")[2] != key.hash("7").split("-")[2]
    assert known_keys(shop) == [other, key]


def test_a_broken_key_or_a_place_that_cannot_be_written_is_named(
    shop: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "log" / "events.csv" / "ids.key"))
    with pytest.raises(DataError, match=f"events.csv.*let {KEY_VARIABLE} name a file that may be"):
        key_of(shop)
    (tmp_path / "short.key").write_bytes(b"abc")
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "short.key"))
    with pytest.raises(DataError, match=r"short.key holds 3 bytes, and a key of ids has 32"):
        known_keys(shop)


def test_stored_forecasts_hold_no_id_and_are_scored_by_the_logs_people(
    shop: Dataset, tmp_path: Path
) -> None:
    store(tmp_path / "stored", shop)
    (path,) = (tmp_path / "stored").iterdir()
    assert not [user for user in shop.log.user_ids if user.encode() in path.read_bytes()]
    stored = load_forecasts(tmp_path / "stored")
    assert set(score_forecasts(stored, shop)["user_id"]) == set(shop.log.user_ids)
    (own,) = filter_forecasts(stored, shop, "u003")
    assert own.user_id == "u003"
    with pytest.raises(DataError, match=r"user 'u03' is not known \(6 users; .*'u003'"):
        filter_forecasts(stored, shop, "u03")


def test_without_the_key_nobody_is_known_and_its_file_is_named(
    shop: Dataset, tmp_path: Path
) -> None:
    store(tmp_path / "stored", shop)
    key = key_of(shop)
    key.path.rename(tmp_path / "moved.key")
    stored = load_forecasts(tmp_path / "stored")
    missing = (
        rf"hashed with the key {key.name}, and it is not in .*\.events\.csv\.llmrec-id-key nor"
    )
    with pytest.raises(DataError, match=missing):
        filter_forecasts(stored, shop, "u003")
    scores = score_forecasts(stored, shop)
    assert set(scores["status"]) == {"unknown user"}
    assert scores["why"].str.contains(missing).all()
