"""Examples on disk: prior and target of every read position, and a manifest that is checked."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmrec.data.dataset import Dataset
from llmrec.data.keyed_ids import key_of
from llmrec.data.options import ReadingOptions
from llmrec.data.periods import Window, split_into_ticks, truncate_log
from llmrec.data.provenance import TrainingSpan
from llmrec.data.splits import (
    rolling_training_windows,
    split_timelines,
    split_windows,
    was_trained_on,
)
from llmrec.data.windows import last_period_windows
from llmrec.errors import DataError
from llmrec.explain.describe import target_line
from llmrec.language.codec import Codec
from llmrec.language.tokenization import POOL_END, POOL_START
from llmrec.training.dataset import MANIFEST_FILE, DatasetManifest, load_examples, save_examples
from tests.training.tiny_timelines import PRIOR, make_codec, make_dataset
from tests.worlds import catalog, log

PERIODS = ("7D", "4 events")


def save(
    folder: Path, data: Dataset, codec: Codec, reading: ReadingOptions | None = None
) -> DatasetManifest:
    people, validation = rolling_training_windows(data), split_windows(data)["validation"]
    return save_examples(folder, data, codec, PRIOR, people, validation, seed=3, reading=reading)


@pytest.fixture(scope="module", params=PERIODS)
def saved_examples(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple:
    """Save examples once for the tests that only read them."""
    data, folder = make_dataset(request.param), tmp_path_factory.mktemp("examples") / "examples"
    codec = make_codec(data)
    return data, codec, folder, save(folder, data, codec)


def test_saved_examples_are_loaded_as_they_were(saved_examples: tuple) -> None:
    data, codec, folder, manifest = saved_examples
    loaded, parts = load_examples(folder)
    assert loaded == replace(manifest, fitted=loaded.fitted, counting=loaded.counting)
    assert loaded.fitted == json.loads(json.dumps(manifest.fitted))
    assert (loaded.labels, loaded.prompt, loaded.budget) == (codec.labels, "forecast-v3", 200)
    assert len(parts["train"]) == loaded.n_timelines
    assert sum(map(len, parts["train"]["back"])) == loaded.n_slots
    assert type(PRIOR)(**loaded.counting) == PRIOR
    loaded.check(data)


def observed_over_expected(windows: list[Window]) -> dict[np.datetime64, np.ndarray]:
    """Everybody's observed counts over those that the prior expected, by cutoff."""
    by_cutoff: dict[np.datetime64, list[Window]] = {}
    for window in windows if windows[0].history.period_length.unit != "events" else []:
        by_cutoff.setdefault(window.history.cutoff, []).append(window)
    ratios = {}
    for cutoff, part in by_cutoff.items():
        observed = sum(window.target.category_counts for window in part)
        expected = sum(
            PRIOR.category_weights([window.history])[0] * window.target.category_counts.sum()
            for window in part
        )
        ratios[cutoff] = (observed + 0.5) / (expected + 0.5)
    return ratios


def test_every_read_position_has_the_prior_and_the_target_of_its_own_window(
    saved_examples: tuple,
) -> None:
    data, codec, folder, manifest = saved_examples
    table, all_titles = load_examples(folder)[1]["train"], list(manifest.titles)
    hash_id = key_of(data).hash
    windows = {hash_id(line[0].history.user_id): line for line in rolling_training_windows(data)}
    left = {user: len(timeline) for user, timeline in windows.items()}
    ratios = observed_over_expected(
        [window for timeline in windows.values() for window in timeline]
    )
    for row in table:  # the newest part of a person comes first
        user = str(row["user"])
        timeline = windows[user][left[user] - len(row["back"]) : left[user]]
        left[user] -= len(timeline)
        newest = timeline[-1].history
        assert row["prompt"] == codec.prompt(newest)
        assert row["request"] == codec.completion_prompt(newest)
        (expected,) = PRIOR.category_weights([newest])
        assert row["line"] == target_line(codec, timeline[-1], expected, 3)
        for back, prior, shares, numbers, window in zip(
            row["back"], row["log_prior"], row["shares"], row["taken"], timeline, strict=True
        ):
            titles = [codec.title(data.catalog, item) for item in window.target.item_idx]
            assert [all_titles[number] for number in numbers] == titles
            assert len(split_into_ticks(newest)[0]) - back == len(
                split_into_ticks(window.history)[0]
            )
            expected = PRIOR.category_weights([window.history])[0]
            expected *= ratios.get(window.history.cutoff, 1.0)
            np.testing.assert_allclose(np.exp(prior), expected / expected.sum(), rtol=1e-4)
            counts = window.target.category_counts
            np.testing.assert_allclose(shares, counts / counts.sum(), atol=1e-6)
    assert not any(left.values())


def test_titles_are_counted_over_the_training_targets(saved_examples: tuple) -> None:
    data, codec, _, manifest = saved_examples
    windows = [window for timeline in rolling_training_windows(data) for window in timeline]
    counts = Counter(
        codec.title(data.catalog, item) for window in windows for item in window.target.item_idx
    )
    assert manifest.titles == counts
    assert list(manifest.titles) == sorted(manifest.titles)


def test_a_title_that_is_also_a_label_is_left_out(tmp_path: Path) -> None:
    data = make_dataset()
    titles = ["Drama", *data.catalog.titles[1:]]
    data = replace(data, catalog=replace(data.catalog, titles=tuple(titles)))
    manifest = save(tmp_path / "examples", data, make_codec(data))
    assert "Drama" not in manifest.titles
    assert len(manifest.titles) > 3


def test_examples_that_include_validation_hold_its_targets_and_no_test_target(
    saved_examples: tuple,
) -> None:
    data = saved_examples[0]
    people, held_out = split_timelines(data, include_validation=True)
    seen = {
        (window.history.user_idx, window.target.stop) for windows in people for window in windows
    }
    assert {(window.history.user_idx, window.target.stop) for window in held_out} <= seen
    tests = [part for name, part in split_windows(data).items() if name != "validation"]
    for window in [window for windows in people for window in windows]:
        for test in [test for test in tests[0] if test.history.user_idx == window.history.user_idx]:
            assert window.target.stop <= test.target.start


def test_a_window_that_was_trained_on_is_known_in_a_shorter_log_too(saved_examples: tuple) -> None:
    data = saved_examples[0]
    trained_on = was_trained_on(data)
    people, held_out = split_timelines(data)
    assert all(trained_on(window) for windows in people for window in windows)
    assert all(map(trained_on, held_out))
    tests = [part for name, part in split_windows(data).items() if name != "validation"]
    assert not any(map(trained_on, tests[-1]))
    end = tests[-1][0].history.cutoff
    shorter = replace(data, log=truncate_log(data.log, end))
    newest = last_period_windows(shorter.log, shorter.catalog, shorter.period)
    assert [trained_on(window) for window in newest] == [
        trained_on(replace_log(window, data)) for window in newest
    ]


def replace_log(window: Window, data: Dataset) -> Window:
    """Give a window of a shorter log as one of the whole log."""
    history, user = window.history, data.log.user_index(window.history.user_id)
    moved = int(data.log.user_offsets[user] - history.log.user_offsets[history.user_idx])
    target = replace(
        window.target,
        log=data.log,
        start=window.target.start + moved,
        stop=window.target.stop + moved,
    )
    whole = replace(history, log=data.log, user_idx=user, offsets=history.offsets + moved)
    return Window(whole, target)


def test_a_validation_window_has_one_read_position_at_the_end_of_its_prompt(
    saved_examples: tuple,
) -> None:
    data, codec, folder, _ = saved_examples
    validation = split_windows(data)["validation"]
    table = load_examples(folder)[1]["validation"]
    assert [list(back) for back in table["back"]] == [[0]] * len(validation)
    assert list(table["prompt"]) == [codec.prompt(window.history) for window in validation]


def test_the_manifest_says_what_of_the_log_was_seen(saved_examples: tuple) -> None:
    data, _, folder, manifest = saved_examples
    parts = split_windows(data)
    seen = TrainingSpan.from_dict(load_examples(folder)[0].fitted)
    assert all(map(seen.covers, parts["validation"]))
    assert not any(map(seen.covers, parts["test 1" if "test 1" in parts else "test"]))
    if data.period == "7D":
        assert np.datetime64(manifest.cutoff) <= parts["validation"][0].history.cutoff


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("budget", [28, 31, 40, 55])
def test_no_read_position_lies_outside_its_prompt_whatever_the_budget(
    tmp_path: Path, period: str, budget: int
) -> None:
    data = make_dataset(period, n_users=2, n_periods=14)
    codec = make_codec(data, budget=budget)
    manifest = save(tmp_path / "examples", data, codec)
    n_positions = 0
    for row in load_examples(tmp_path / "examples")[1]["train"]:
        pooled = str(row["prompt"]).count(POOL_START)
        merged = f"{POOL_START} before " in str(row["prompt"])
        assert row["back"].max() <= pooled - merged
        assert (np.diff(row["back"]) < 0).all()
        assert row["back"][-1] == 0
        n_positions += len(row["back"])
    assert n_positions == manifest.n_slots == sum(map(len, rolling_training_windows(data)))


def test_the_manifest_says_how_the_log_was_read(tmp_path: Path) -> None:
    data = make_dataset()
    reading = ReadingOptions(columns={"user": "who"}, noun="films")
    save(tmp_path / "examples", data, make_codec(data), reading=reading)
    stored = DatasetManifest.load(tmp_path / "examples").reading
    assert ReadingOptions.from_values(stored) == reading


def test_a_changed_log_or_another_one_is_refused(saved_examples: tuple) -> None:
    data, _, _, manifest = saved_examples
    others = (
        replace(data, log=log(4, 8, seed=1).align_to(catalog())),
        replace(data, period="3 events"),
        replace(data, name="other"),
    )
    for other in others:
        with pytest.raises(DataError, match=r"made of small .* the data changed; run finetune"):
            manifest.check(other)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"labels": ["A"], "categories": ["A"], "surprise": 1}'],
)
def test_a_broken_manifest_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=rf"{MANIFEST_FILE} is no manifest of examples"):
        load_examples(tmp_path)


def test_broken_and_missing_files_are_refused_by_name(tmp_path: Path) -> None:
    data, folder = make_dataset(), tmp_path / "examples"
    with pytest.raises(DataError, match=r"manifest\.json is no manifest"):
        load_examples(folder)
    codec = make_codec(data)
    for name in ("arrow", "state.json", "dataset_info.json", "dataset_dict.json"):
        save(folder, data, codec)
        paths = [path for path in folder.rglob("*") if path.name.endswith(name)]
        for content in (b"", b"[", b"{}" * (name != "dataset_info.json")):
            for path in paths:
                path.write_bytes(content)
            with pytest.raises(DataError, match=rf"{name} changed .*run finetune/make_data"):
                load_examples(folder)
            without_hashes(folder)
            with (
                pytest.warns(UserWarning, match="written without hashes"),
                pytest.raises(DataError, match=r"holds no examples.*run finetune/make_data"),
            ):
                load_examples(folder)
            save(folder, data, codec)
        paths[0].unlink()
        with pytest.raises(DataError, match=rf"{name} is missing"):
            load_examples(folder)


def without_hashes(folder: Path) -> None:
    """Make the manifest one of before version 0.5."""
    path = folder / MANIFEST_FILE
    values = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in values.items() if k not in ("hash", "files")}))


def test_saving_again_replaces_examples_and_nothing_else_in_the_folder(tmp_path: Path) -> None:
    data, folder = make_dataset(), tmp_path / "examples"
    folder.mkdir()
    (folder / "mine.txt").write_text("unchanged", encoding="utf-8")
    save(folder, data, make_codec(data))
    few = make_dataset(n_users=2)
    save(folder, few, make_codec(few))
    assert len({str(user) for user in load_examples(folder)[1]["train"]["user"]}) == 2
    assert (folder / "mine.txt").read_text(encoding="utf-8") == "unchanged"


def test_nothing_to_train_or_to_validate_on_is_refused_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    data = make_dataset()
    people, validation = rolling_training_windows(data), split_windows(data)["validation"]
    for windows, held_out in (([], validation), (people, [])):
        with pytest.raises(DataError, match="both are needed"):
            save_examples(tmp_path / "examples", data, make_codec(data), PRIOR, windows, held_out)
    assert not list(tmp_path.iterdir())


def test_a_prompt_on_disk_keeps_its_pooled_positions(saved_examples: tuple) -> None:
    for row in load_examples(saved_examples[2])[1]["train"]:
        text = str(row["prompt"])
        assert text.count(POOL_START) == text.count(POOL_END) > 0
