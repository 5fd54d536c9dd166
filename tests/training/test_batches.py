"""Batches: every timeline once, the same for the same seed and epoch, as large as allowed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from llmrec.data.splits import rolling_training_windows, split_windows
from llmrec.errors import TrainingError
from llmrec.language.model import LanguageModel
from llmrec.training.batches import POSITIONS_PER_EPOCH, TimelineBatches
from llmrec.training.dataset import load_examples, save_examples
from tests.training.tiny_timelines import FAMILIES, PRIOR, make_codec, make_dataset, save_model


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    data, folder = make_dataset(n_users=6), tmp_path_factory.mktemp("examples")
    held_out = split_windows(data)["validation"]
    save_examples(
        folder, data, make_codec(data, budget=45), PRIOR, rolling_training_windows(data), held_out
    )
    return load_examples(folder)[1]["train"]


@pytest.fixture(scope="module", params=FAMILIES)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    folder = save_model(request.param, tmp_path_factory.mktemp(request.param))
    return LanguageModel.load(str(folder), device="cpu")


def make_timelines(
    table: datasets.Dataset, model: LanguageModel, **options: Any
) -> TimelineBatches:
    return TimelineBatches(table, model, **{"batch_positions": 300, "line_share": 0.5, **options})


def make_epoch(timelines: TimelineBatches, epoch: int) -> list[dict[str, Any]]:
    return [batch() for batch in timelines.epoch(epoch)]


def to_lists(batch: dict[str, Any]) -> list[object]:
    read = batch["read_positions"]
    tensors = [read.row, read.back, read.log_prior, read.shares]
    return [batch["prompts"], batch["requests"], batch["lines"], *(t.tolist() for t in tensors)]


def test_one_seed_and_epoch_gives_the_same_batches_and_another_does_not(
    table: datasets.Dataset, model: LanguageModel
) -> None:
    first = [to_lists(batch) for batch in make_epoch(make_timelines(table, model, seed=1), 2)]
    again = make_timelines(table, model, seed=1)
    make_epoch(again, 0)  # epochs that were made before do not matter
    assert [to_lists(batch) for batch in make_epoch(again, 2)] == first
    assert [to_lists(batch) for batch in make_epoch(again, 3)] != first
    assert [
        to_lists(batch) for batch in make_epoch(make_timelines(table, model, seed=2), 2)
    ] != first


def test_a_batch_is_the_same_whenever_it_is_made(
    table: datasets.Dataset, model: LanguageModel
) -> None:
    lazy = make_timelines(table, model).epoch(0)
    assert [to_lists(batch()) for batch in reversed(lazy)] == [to_lists(b()) for b in lazy][::-1]


def test_every_timeline_is_in_an_epoch_once(table: datasets.Dataset, model: LanguageModel) -> None:
    timelines = make_timelines(table, model)
    expected: Counter[str] = Counter()
    for row, back in enumerate(timelines.back):
        n = min(POSITIONS_PER_EPOCH, len(back)) if model.is_encoder_decoder else 1
        expected[str(timelines.log_prior[row][-1].tolist()) if n == 1 else str(row)] += n
    n_sequences = sum(len(batch["prompts"]) for batch in make_epoch(timelines, 0))
    assert n_sequences == sum(expected.values())
    if not model.is_encoder_decoder:
        seen = [str(row) for batch in make_epoch(timelines, 0) for row in batch["prompts"]]
        assert sorted(seen) == sorted(map(str, timelines.prompts))
        n_positions = sum(len(batch["read_positions"].row) for batch in make_epoch(timelines, 0))
        assert n_positions == sum(map(len, timelines.back))


@pytest.mark.parametrize("size", [1, 60, 150, 10_000])
def test_a_batch_is_within_its_positions_unless_one_sequence_alone_is_longer(
    table: datasets.Dataset, model: LanguageModel, size: int
) -> None:
    batches = make_epoch(make_timelines(table, model, batch_positions=size), 0)
    for batch in batches:
        prompts = batch["prompts"]
        assert len(prompts) == 1 or len(prompts) * max(map(len, prompts)) <= size
        assert batch["n_positions"] == sum(map(len, prompts))
    if size == 10_000:
        assert len(batches) == 1


def test_read_positions_have_their_row_place_prior_and_target(
    table: datasets.Dataset, model: LanguageModel
) -> None:
    timelines = make_timelines(table, model)
    ends = 1 if model.is_encoder_decoder else 0
    for batch in make_epoch(timelines, 0):
        read = batch["read_positions"]
        assert sorted(set(read.row.tolist())) == list(range(len(batch["prompts"])))
        for row, back, prior, shares in zip(
            read.row.tolist(),
            read.back.tolist(),
            read.log_prior.numpy(),
            read.shares.numpy(),
            strict=True,
        ):
            sequence = batch["prompts"][row]
            context = sequence[: len(sequence) - back] if not ends else sequence
            (timeline,) = {
                at
                for at, prompt in enumerate(timelines.prompts)
                if prompt[: len(context) - ends] == context[: len(context) - ends]
                for number in range(len(timelines.back[at]))
                if len(prompt) - timelines.back[at][number] == len(context)
                and np.array_equal(timelines.log_prior[at][number], prior)
                and np.array_equal(timelines.shares[at][number], shares)
            }
            assert timeline is not None
            assert (
                sequence[len(sequence) - ends :] == timelines.prompts[timeline][-ends:] or not ends
            )


def test_an_encoder_is_given_the_prompt_of_the_history_at_the_read_position(tmp_path: Path) -> None:
    data = make_dataset()
    model = LanguageModel.load(str(save_model("t5", tmp_path / "t5")), device="cpu")
    codec, people = make_codec(data, model), rolling_training_windows(data)
    folder = tmp_path / "examples"
    save_examples(folder, data, codec, PRIOR, people, split_windows(data)["validation"])
    expected = {
        str(row)
        for windows in people
        for row in model.encode_prompts([codec.prompt(window.history) for window in windows])
    }
    timelines = TimelineBatches(load_examples(folder)[1]["train"], model, batch_positions=500)
    seen = {
        str(row)
        for epoch in range(25)
        for b in make_epoch(timelines, epoch)
        for row in b["prompts"]
    }
    assert seen <= expected
    assert len(seen) > len(people) * POSITIONS_PER_EPOCH


def test_lines_are_a_share_of_the_sequences_and_stay_with_their_requests(
    table: datasets.Dataset, model: LanguageModel
) -> None:
    for share, least, most in ((0.0, 0, 0), (0.5, 0.2, 0.8), (1.0, 1, 1)):
        timelines = make_timelines(table, model, line_share=share)
        pairs = {(str(a), str(b)) for a, b in zip(timelines.requests, timelines.lines, strict=True)}
        n = n_lines = 0
        for epoch in range(4):
            for batch in make_epoch(timelines, epoch):
                n, n_lines = n + len(batch["prompts"]), n_lines + len(batch["lines"])
                both = zip(batch["requests"], batch["lines"], strict=True)
                assert {(str(a), str(b)) for a, b in both} <= pairs
        assert least <= n_lines / n <= most


def test_held_out_windows_are_each_given_once_with_their_newest_read_position(
    table: datasets.Dataset, model: LanguageModel
) -> None:
    timelines = make_timelines(table, model, batch_positions=90)
    rows = []
    for numbers, prompts, read in timelines.validation_batches():
        assert len(prompts) == 1 or len(prompts) * max(map(len, prompts)) <= 90
        assert prompts == [timelines.prompts[row] for row in numbers]
        assert read.row.tolist() == list(range(len(prompts)))
        assert not read.back.any()
        newest = torch.from_numpy(np.stack([timelines.shares[row][-1] for row in numbers]))
        assert torch.equal(read.shares, newest)
        rows += numbers.tolist()
    assert sorted(rows) == list(range(len(timelines.back)))


def test_a_line_of_the_examples_is_valid_under_its_grammar(model: LanguageModel) -> None:
    codec = make_codec(make_dataset())
    line = " Drama 60%, Comedy 30%, other 10%: Drama is rising, Comedy is fading."
    (tokens,) = model.encode([line])
    matcher = model._plain.compile_grammar(codec.line.grammar())
    assert matcher.validate_tokens([*tokens, model.end_token_id]) == len(tokens) + 1


@pytest.mark.parametrize("damage", ["target", "line"])
def test_a_row_without_a_label_is_refused_by_its_user(
    table: datasets.Dataset, model: LanguageModel, damage: str
) -> None:
    columns = table.with_format(None)[:]
    if damage == "target":
        columns["shares"][2][0] = [0.0] * 5
    else:
        columns["line"][2] = "  "
    broken = datasets.Dataset.from_dict(columns, features=table.features)
    with pytest.raises(TrainingError, match=rf"no label: that of user '{columns['user'][2]}'"):
        make_timelines(broken, model)


def test_label_renaming_replaces_a_label_by_the_same_name_in_all_ticks(
    table: datasets.Dataset, model: LanguageModel
) -> None:
    labels = make_codec(make_dataset()).labels
    known = {tuple(tokens) for tokens in model.encode([f" {label}" for label in labels])}
    original = make_epoch(make_timelines(table, model), 1)
    for before, after in zip(
        original,
        make_epoch(make_timelines(table, model, labels=labels, label_renaming=1.0), 1),
        strict=True,
    ):
        for old, new in zip(before["prompts"], after["prompts"], strict=True):
            names: dict[Any, Any] = {}
            assert len(old) == len(new)
            first = next(bag for bag in old if len(bag) > 1)
            for bag, other in zip(old, new, strict=True):
                if bag is first:
                    continue
                for part, name in zip(bag, other, strict=True):
                    if len(bag) > 1 and part in known:
                        assert names.setdefault(part, name) == name
                        assert 1 <= len(name) <= 3
                    else:
                        assert name == part
        assert before["read_positions"].shares.tolist() == after["read_positions"].shares.tolist()
    share = make_epoch(make_timelines(table, model, labels=labels, label_renaming=0.5), 1)
    assert sum(a["prompts"] != b["prompts"] for a, b in zip(original, share, strict=True)) > 0
    assert to_lists(make_epoch(make_timelines(table, model, labels=labels), 1)[0]) == to_lists(
        original[0]
    )


def test_the_shares_of_all_earlier_ticks_name_categories_as_the_later_ticks_do(
    model: LanguageModel, tmp_path: Path
) -> None:
    data = make_dataset(n_users=6)
    codec, held_out = make_codec(data, model, budget=30), split_windows(data)["validation"]
    save_examples(tmp_path, data, codec, PRIOR, rolling_training_windows(data), held_out)
    timelines = make_timelines(
        load_examples(tmp_path)[1]["train"], model, labels=codec.labels, label_renaming=1.0
    )
    known = timelines.labels
    # A name that is drawn may hold a label: here none can.
    timelines.name_tokens = sorted(
        set(timelines.name_tokens) - {token for label in known for token in label}
    )
    merged = 0
    for old in timelines.prompts:
        new = timelines._rename_labels(old, np.random.default_rng(3))
        at = next(i for i, bag in enumerate(old) if len(bag) > 1)
        names = {
            part: name
            for bag, other in zip(old[at + 1 :], new[at + 1 :], strict=True)
            for part, name in zip(bag, other, strict=True)
            if part in known
        }
        for text, renamed in zip(old[at], new[at], strict=True):
            inside = [label for label in known if _holds(text, label)]
            assert not any(_holds(renamed, label) for label in known)
            assert all(_holds(renamed, names[label]) for label in inside if label in names)
            merged += len(inside) > 1
    assert merged


def _holds(text: tuple[int, ...], part: tuple[int, ...]) -> bool:
    return any(text[i : i + len(part)] == part for i in range(len(text)))
