"""What a fit has trained is found again; what was cut off is trained anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmrec.data.stored import Stored
from llmrec.fit_store import FitProgress, FitStore, format_seconds

KEY = {"log": "abc", "seed": 0}


class Training:
    """Counts how often it is asked to train."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self) -> Stored:
        self.n += 1
        return Stored("Net", {"n": self.n}, {"weights": np.arange(3.0) * self.n})


def test_what_was_trained_is_found_again_under_its_name_and_key_alone(tmp_path: Path) -> None:
    train = Training()
    first = FitStore(tmp_path).get("GRU", KEY, train)
    again = FitStore(tmp_path).get("GRU", dict(reversed(KEY.items())), train)
    assert train.n == 1
    assert again.values == first.values
    assert again.arrays["weights"].tobytes() == first.arrays["weights"].tobytes()
    FitStore(tmp_path).get("SASRec", KEY, train)
    FitStore(tmp_path).get("GRU", KEY | {"seed": 1}, train)
    assert train.n == 3


def test_another_version_of_the_package_trains_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = Training()
    FitStore(tmp_path).get("GRU", KEY, train)
    monkeypatch.setattr("llmrec.fit_store.__version__", "99")
    FitStore(tmp_path).get("GRU", KEY, train)
    assert train.n == 2


def test_without_a_folder_nothing_is_stored() -> None:
    train, store = Training(), FitStore(None)
    for _ in range(2):
        store.get("GRU", KEY, train)
    assert train.n == 2


@pytest.mark.parametrize("part", ["arrays.safetensors", "stored.json"])
def test_a_file_that_was_cut_off_is_trained_again(tmp_path: Path, part: str) -> None:
    train = Training()
    FitStore(tmp_path).get("GRU", KEY, train)
    (path,) = tmp_path.glob(f"GRU-*/{part}")
    path.write_bytes(path.read_bytes()[:-9])
    for _ in range(2):
        FitStore(tmp_path).get("GRU", KEY, train)
    assert train.n == 2


def test_a_training_that_is_interrupted_leaves_nothing_to_be_found(tmp_path: Path) -> None:
    def interrupted() -> Stored:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FitStore(tmp_path).get("GRU", KEY, interrupted)
    train = Training()
    FitStore(tmp_path).get("GRU", KEY, train)
    assert train.n == 1


def test_progress_names_each_member_and_says_how_much_is_done_and_left() -> None:
    lines: list[str] = []
    progress = FitProgress(lines.append)
    progress.plan(4.0)
    progress.begin("first", 1.0)
    progress.begin("second", 3.0)
    progress.begin("one more", 1.0)
    assert lines[0] == "first ..."
    assert lines[1].startswith("second ... 25% done, about ")
    assert lines[2].startswith("one more ... 80% done, about ")
    assert all(line.endswith(" left") for line in lines[1:])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (89, "89 s"), (120, "2 min"), (7800, "2 h 10 min")],
)
def test_seconds_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
