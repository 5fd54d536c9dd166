"""A person's timelines leave training examples, and what is left is as if they had not been."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmrec.data.dataset import Dataset
from llmrec.data.keyed_ids import key_of
from llmrec.data.splits import split_timelines
from llmrec.errors import DataError
from llmrec.training.dataset import load_examples, save_examples
from llmrec.training.example_removal import count_timelines, examples_without
from tests.training.tiny_timelines import PRIOR, make_codec, make_dataset


def somebody(data: Dataset) -> str:
    """Give a person without the first or the last event, by which periods are laid."""
    log = data.log
    ends = log.user_idx[[log.timestamp.argmin(), log.timestamp.argmax()]]
    return next(str(log.user_ids[user]) for user in range(log.n_users) if user not in ends)


def without(data: Dataset, user: str) -> Dataset:
    own = data.log.user_idx == data.log.user_index(user)
    return replace(data, log=data.log.drop_events({"gone": own}))


def save(folder: Path, data: Dataset, whole: Dataset) -> None:
    """Write examples of a log with the prompts of a whole one."""
    save_examples(folder, data, make_codec(whole), PRIOR, *split_timelines(data), seed=3)


@pytest.mark.parametrize("period", ["7D", "4 events"])
def test_examples_without_a_person_are_those_of_the_others(tmp_path: Path, period: str) -> None:
    whole = make_dataset(period)
    gone, key = somebody(whole), key_of(whole)
    rest, ids = without(whole, gone), {gone, key.hash(gone)}
    save(tmp_path / "one", whole, whole)
    save(tmp_path / "two", rest, whole)
    n_rows, n_own = count_timelines(tmp_path / "one", ids)
    assert n_own > 0
    examples_without(tmp_path / "one", ids, whole, rest).save()
    assert count_timelines(tmp_path / "one", ids) == (n_rows - n_own, 0)
    (found, parts), (right, expected) = map(load_examples, (tmp_path / "one", tmp_path / "two"))
    for field in ("titles", "n_timelines", "n_slots", "data_fingerprint", "categories", "labels"):
        assert getattr(found, field) == getattr(right, field), field
    assert found.fitted == right.fitted
    found.check(rest)
    for name in ("train", "validation"):
        for one, other in zip(parts[name], expected[name], strict=True):
            # Priors have counts of everybody in them, which is said of them.
            for column in ("user", "prompt", "request", "back"):
                np.testing.assert_array_equal(one[column], other[column])
            for taken, right_ones in zip(one["taken"], other["taken"], strict=True):
                np.testing.assert_array_equal(taken, right_ones)
    held = b"".join(path.read_bytes() for path in (tmp_path / "one").rglob("*.arrow"))
    assert key.hash(gone).encode() not in held


def test_examples_of_somebody_alone_are_not_emptied(tmp_path: Path) -> None:
    data = make_dataset("7D")
    save(tmp_path, data, data)
    everybody = set(map(key_of(data).hash, data.log.user_ids))
    with pytest.raises(DataError, match="nothing to train or to validate on"):
        examples_without(tmp_path, everybody, data, data)
    assert count_timelines(tmp_path, everybody)[0] > 0
