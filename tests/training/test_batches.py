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
from tests.training.small import KINDS, PRIOR, codec_of, dataset, saved


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    data, folder = dataset(n_users=6), tmp_path_factory.mktemp("pairs")
    found = split_windows(data)["validation"]
    save_examples(
        folder, data, codec_of(data, budget=45), PRIOR, rolling_training_windows(data), found
    )
    return load_examples(folder)[1]["train"]


@pytest.fixture(scope="module", params=KINDS)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    folder = saved(request.param, tmp_path_factory.mktemp(request.param))
    return LanguageModel.load(str(folder), device="cpu")


def examples(table: datasets.Dataset, model: LanguageModel, **options: Any) -> TimelineBatches:
    return TimelineBatches(table, model, **{"batch_positions": 300, "line_share": 0.5, **options})


def made(found: TimelineBatches, epoch: int) -> list[dict[str, Any]]:
    return [batch() for batch in found.epoch(epoch)]


def plain(batch: dict[str, Any]) -> list[object]:
    slots = batch["slots"]
    tensors = [slots.row, slots.back, slots.log_prior, slots.shares]
    return [batch["prompts"], batch["requests"], batch["lines"], *(t.tolist() for t in tensors)]


def test_one_seed_and_epoch_gives_the_same_batches_and_another_does_not(
    table: datasets.Dataset, model: LanguageModel
) -> None:
    first = [plain(batch) for batch in made(examples(table, model, seed=1), 2)]
    again = examples(table, model, seed=1)
    made(again, 0)  # what was asked before does not matter
    assert [plain(batch) for batch in made(again, 2)] == first
    assert [plain(batch) for batch in made(again, 3)] != first
    assert [plain(batch) for batch in made(examples(table, model, seed=2), 2)] != first


def test_a_batch_is_the_same_whenever_it_is_made(
    table: datasets.Dataset, model: LanguageModel
) -> None:
    lazy = examples(table, model).epoch(0)
    assert [plain(batch()) for batch in reversed(lazy)] == [plain(b()) for b in lazy][::-1]


def test_every_timeline_comes_once_an_epoch(table: datasets.Dataset, model: LanguageModel) -> None:
    found = examples(table, model)
    expected: Counter[str] = Counter()
    for row, back in enumerate(found.back):
        n = min(POSITIONS_PER_EPOCH, len(back)) if model.is_encoder_decoder else 1
        expected[str(found.log_prior[row][-1].tolist()) if n == 1 else str(row)] += n
    n_sequences = sum(len(batch["prompts"]) for batch in made(found, 0))
    assert n_sequences == sum(expected.values())
    if not model.is_encoder_decoder:
        seen = [str(row) for batch in made(found, 0) for row in batch["prompts"]]
        assert sorted(seen) == sorted(map(str, found.prompts))
        n_slots = sum(len(batch["slots"].row) for batch in made(found, 0))
        assert n_slots == sum(map(len, found.back))


@pytest.mark.parametrize("size", [1, 60, 150, 10_000])
def test_a_batch_is_within_its_positions_unless_one_sequence_alone_is_longer(
    table: datasets.Dataset, model: LanguageModel, size: int
) -> None:
    batches = made(examples(table, model, batch_positions=size), 0)
    for batch in batches:
        prompts = batch["prompts"]
        assert len(prompts) == 1 or len(prompts) * max(map(len, prompts)) <= size
        assert batch["n_positions"] == sum(map(len, prompts))
    if size == 10_000:
        assert len(batches) == 1


def test_slots_say_where_they_are_and_what_is_theirs(
    table: datasets.Dataset, model: LanguageModel
) -> None:
    found = examples(table, model)
    ends = 1 if model.is_encoder_decoder else 0
    for batch in made(found, 0):
        slots = batch["slots"]
        assert sorted(set(slots.row.tolist())) == list(range(len(batch["prompts"])))
        for row, back, prior, shares in zip(
            slots.row.tolist(),
            slots.back.tolist(),
            slots.log_prior.numpy(),
            slots.shares.numpy(),
            strict=True,
        ):
            sequence = batch["prompts"][row]
            read = sequence[: len(sequence) - back] if not ends else sequence
            (timeline,) = {
                at
                for at, prompt in enumerate(found.prompts)
                if prompt[: len(read) - ends] == read[: len(read) - ends]
                for slot in range(len(found.back[at]))
                if len(prompt) - found.back[at][slot] == len(read)
                and np.array_equal(found.log_prior[at][slot], prior)
                and np.array_equal(found.shares[at][slot], shares)
            }
            assert timeline is not None
            assert sequence[len(sequence) - ends :] == found.prompts[timeline][-ends:] or not ends


def test_an_encoder_reads_what_the_history_at_the_slot_would_say(tmp_path: Path) -> None:
    data = dataset()
    model = LanguageModel.load(str(saved("t5", tmp_path / "t5")), device="cpu")
    codec, people = codec_of(data, model), rolling_training_windows(data)
    folder = tmp_path / "pairs"
    save_examples(folder, data, codec, PRIOR, people, split_windows(data)["validation"])
    expected = {
        str(row)
        for windows in people
        for row in model.positions([codec.prompt(window.history) for window in windows])
    }
    found = TimelineBatches(load_examples(folder)[1]["train"], model, batch_positions=500)
    seen = {str(row) for epoch in range(25) for b in made(found, epoch) for row in b["prompts"]}
    assert seen <= expected
    assert len(seen) > len(people) * POSITIONS_PER_EPOCH


def test_lines_are_a_share_of_the_sequences_and_stay_with_their_requests(
    table: datasets.Dataset, model: LanguageModel
) -> None:
    for share, least, most in ((0.0, 0, 0), (0.5, 0.2, 0.8), (1.0, 1, 1)):
        found = examples(table, model, line_share=share)
        pairs = {(str(a), str(b)) for a, b in zip(found.requests, found.lines, strict=True)}
        n = n_lines = 0
        for epoch in range(4):
            for batch in made(found, epoch):
                n, n_lines = n + len(batch["prompts"]), n_lines + len(batch["lines"])
                both = zip(batch["requests"], batch["lines"], strict=True)
                assert {(str(a), str(b)) for a, b in both} <= pairs
        assert least <= n_lines / n <= most


def test_held_out_windows_come_each_once_with_their_newest_slot(
    table: datasets.Dataset, model: LanguageModel
) -> None:
    found = examples(table, model, batch_positions=90)
    rows = []
    for numbers, prompts, slots in found.validation_batches():
        assert len(prompts) == 1 or len(prompts) * max(map(len, prompts)) <= 90
        assert prompts == [found.prompts[row] for row in numbers]
        assert slots.row.tolist() == list(range(len(prompts)))
        assert not slots.back.any()
        newest = torch.from_numpy(np.stack([found.shares[row][-1] for row in numbers]))
        assert torch.equal(slots.shares, newest)
        rows += numbers.tolist()
    assert sorted(rows) == list(range(len(found.back)))


def test_a_written_line_can_be_written_under_its_grammar(model: LanguageModel) -> None:
    codec = codec_of(dataset())
    line = " Drama 60%, Comedy 30%, other 10%: Drama is rising, Comedy is fading."
    (tokens,) = model.encode([line])
    matcher = model._plain.compile_grammar(codec.line.grammar())
    assert matcher.validate_tokens([*tokens, model.end]) == len(tokens) + 1


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
        examples(broken, model)


def test_categories_are_called_otherwise_in_ticks_and_everywhere_alike(
    table: datasets.Dataset, model: LanguageModel
) -> None:
    labels = codec_of(dataset()).labels
    known = {tuple(tokens) for tokens in model.encode([f" {label}" for label in labels])}
    plainly = made(examples(table, model), 1)
    for before, after in zip(
        plainly, made(examples(table, model, labels=labels, renamed=1.0), 1), strict=True
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
        assert before["slots"].shares.tolist() == after["slots"].shares.tolist()
    share = made(examples(table, model, labels=labels, renamed=0.5), 1)
    assert sum(a["prompts"] != b["prompts"] for a, b in zip(plainly, share, strict=True)) > 0
    assert plain(made(examples(table, model, labels=labels), 1)[0]) == plain(plainly[0])


def test_the_mix_of_all_before_calls_categories_as_the_ticks_after_it_do(
    model: LanguageModel, tmp_path: Path
) -> None:
    data = dataset(n_users=6)
    codec, found = codec_of(data, model, budget=30), split_windows(data)["validation"]
    save_examples(tmp_path, data, codec, PRIOR, rolling_training_windows(data), found)
    read = examples(load_examples(tmp_path)[1]["train"], model, labels=codec.labels, renamed=1.0)
    known = read.labels
    # A name that is drawn may hold a label: here none can.
    read.syllables = sorted(set(read.syllables) - {token for label in known for token in label})
    merged = 0
    for old in read.prompts:
        new = read._called_otherwise(old, np.random.default_rng(3))
        at = next(i for i, bag in enumerate(old) if len(bag) > 1)
        names = {
            part: name
            for bag, other in zip(old[at + 1 :], new[at + 1 :], strict=True)
            for part, name in zip(bag, other, strict=True)
            if part in known
        }
        for text, said in zip(old[at], new[at], strict=True):
            inside = [label for label in known if _holds(text, label)]
            assert not any(_holds(said, label) for label in known)
            assert all(_holds(said, names[label]) for label in inside if label in names)
            merged += len(inside) > 1
    assert merged


def _holds(text: tuple[int, ...], part: tuple[int, ...]) -> bool:
    return any(text[i : i + len(part)] == part for i in range(len(text)))
