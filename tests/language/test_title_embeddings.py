"""A new memory says nothing; a trained one knows titles in bags, and is kept whole or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from llmrec.errors import ModelLoadError
from llmrec.language.forward import embed_positions
from llmrec.language.heads import (
    TITLE_EMBEDDINGS_FILE,
    CategoryHead,
    TitleEmbeddings,
    Verbalizer,
    title_hashes,
)
from llmrec.language.model import LanguageModel
from llmrec.language.tokenization import pooled_position
from tests.language.tiny_models import LABELS

WIDTH, RANK = 32, 3
TITLES = ["Drama night", "Comedy of War", "1998"]


def memory_of(model: LanguageModel, *, trained: bool = True) -> TitleEmbeddings:
    torch.manual_seed(4)
    keys = title_hashes(model.encode([f" {title}" for title in TITLES]))
    memory = TitleEmbeddings(keys, WIDTH, RANK, dropout=0.5)
    if trained:
        for values in memory.parameters():
            torch.nn.init.normal_(values)
    return memory.eval()


def film(title: str, *labels: str) -> str:
    return pooled_position([f" {text}" for text in (title, *labels)])


def embedded(model: LanguageModel, memory: TitleEmbeddings | None, prompt: str) -> torch.Tensor:
    with torch.no_grad():
        return embed_positions(model.model, model.positions([prompt]), memory)[0][0]


def test_a_new_memory_changes_no_embedding(model: LanguageModel) -> None:
    prompt = f"To 3 Jan:{film(TITLES[0], 'Drama')}"
    new = memory_of(model, trained=False)
    assert torch.equal(embedded(model, new, prompt), embedded(model, None, prompt))


def test_a_known_title_moves_its_own_bag_as_the_formula_says(model: LanguageModel) -> None:
    memory = memory_of(model)
    prompt = f"{film('Drama', 'War')}{film(TITLES[1], 'Comedy', 'War')}{film(TITLES[0], 'Drama')}"
    moved = embedded(model, memory, prompt) - embedded(model, None, prompt)
    bags = [row for row in range(len(moved)) if moved[row].any()]
    assert len(bags) == 2
    for row, title, n in zip(bags, (1, 0), (3, 2), strict=True):
        expected = memory.input_projection.weight @ memory.vectors.weight[title] / n**0.5
        torch.testing.assert_close(moved[row], expected.detach(), atol=1e-5, rtol=1e-4)


def test_words_of_a_title_in_running_text_are_no_title(model: LanguageModel) -> None:
    prompt = f" {TITLES[2]} {TITLES[0]}:{film('unheard of', 'Drama')}"
    known = embedded(model, memory_of(model), prompt)
    assert torch.equal(known, embedded(model, None, prompt))


def test_dropout_forgets_titles_in_training_only(model: LanguageModel) -> None:
    memory, positions = memory_of(model), model.positions([film(TITLES[0], "Drama") * 200])[0]
    bags = memory(positions).any(dim=1)
    torch.manual_seed(0)
    dropped = memory.train()(positions).any(dim=1)
    assert bags.sum() == 200
    assert 60 < dropped.sum() < 140


def test_what_is_taken_next_is_said_by_the_vectors_that_are_read(model: LanguageModel) -> None:
    memory, states = memory_of(model), torch.randn(5, WIDTH)
    normed = states / states.pow(2).mean(dim=1, keepdim=True).sqrt()
    asked = normed @ memory.query_projection.weight.T
    expected = asked @ memory.vectors.weight.T + memory.bias
    torch.testing.assert_close(memory.scores(states * 9), expected, atol=1e-4, rtol=1e-4)


def test_a_model_with_a_memory_reads_a_prompt_alone_as_in_any_batch(model: LanguageModel) -> None:
    torch.manual_seed(1)
    readout = CategoryHead(WIDTH, 4).eval()
    torch.nn.init.normal_(readout.up.weight)
    memory, names = memory_of(model), Verbalizer(LABELS, model.encode)
    knowing = LanguageModel("tiny", model.model, model.tokenizer, "", readout, memory)
    prompts = [f"Drama:{film(title, 'Drama') * n}" for n, title in enumerate(TITLES, start=1)]
    together = knowing.score_categories(prompts, names)
    alone = np.vstack([knowing.score_categories([prompt], names) for prompt in prompts])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    without = LanguageModel("tiny", model.model, model.tokenizer, "", readout)
    assert np.abs(without.score_categories(prompts, names) - together).max() > 1e-3


def test_what_was_foretold_last_is_not_read_again(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmrec.language.model.CACHED_PROMPTS", 3)
    memory, readout = memory_of(model), CategoryHead(WIDTH, 4).eval()
    knowing = LanguageModel("tiny", model.model, model.tokenizer, "", readout, memory)
    read: list[str] = []

    def final_states(prompts: Sequence[str], depth: int | None) -> torch.Tensor:
        read.extend(prompts)
        return model.final_states(prompts, depth)

    monkeypatch.setattr(knowing, "final_states", final_states)
    first, *others = [f"Drama:{film(TITLES[0], 'Drama') * n}" for n in range(1, 6)]
    once = knowing.title_probabilities([first, others[0], first])
    again = knowing.title_probabilities([first])
    assert read == [first, others[0]]
    np.testing.assert_allclose(once[[0, 2]], [again[0], again[0]], atol=1e-6)
    knowing.title_probabilities(others)
    assert read == [first, *others]
    np.testing.assert_allclose(knowing.title_probabilities([first]), again, atol=1e-6)
    assert read == [first, *others, first]  # four came after it, and three are kept
    assert knowing.title_probabilities([]).shape == (0, len(memory.keys))


def test_lines_are_written_by_a_model_that_knows_titles(model: LanguageModel) -> None:
    knowing = LanguageModel("tiny", model.model, model.tokenizer, title_embeddings=memory_of(model))
    prompts = [film(TITLES[1], "War"), f"{film(TITLES[0], 'Drama') * 3} Drama"]
    lines = knowing.generate(prompts, max_new_tokens=6)
    alone = [knowing.generate([prompt], max_new_tokens=6)[0] for prompt in prompts]
    assert lines == alone


def test_a_memory_is_read_back_as_it_was(tmp_path: Path, model: LanguageModel) -> None:
    memory = memory_of(model)
    memory.save(tmp_path)
    found = TitleEmbeddings.load(tmp_path, WIDTH)
    assert not found.training
    assert torch.equal(found.keys, memory.keys)
    assert all(torch.equal(found.state_dict()[k], v) for k, v in memory.state_dict().items())
    position = model.positions([film(TITLES[0], "Drama")])[0]
    assert torch.equal(found(position), memory(position))


def test_a_saved_memory_holds_no_title(tmp_path: Path, model: LanguageModel) -> None:
    memory_of(model).save(tmp_path)
    content = (tmp_path / TITLE_EMBEDDINGS_FILE).read_bytes()
    assert not any(title.encode() in content for title in TITLES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keys", None),
        ("common", None),
        ("common", torch.zeros(2)),
        ("vectors.weight", torch.zeros(2, RANK)),
        ("into.weight", torch.zeros(WIDTH + 1, RANK)),
        ("keys", torch.zeros(3, 3)),
    ],
    ids=["no keys", "no common", "fewer", "fewer vectors", "another width", "no keys at all"],
)
def test_a_memory_of_other_shapes_is_refused_by_name(
    tmp_path: Path, model: LanguageModel, name: str, value: torch.Tensor | None
) -> None:
    memory_of(model).save(tmp_path)
    content = load_file(tmp_path / TITLE_EMBEDDINGS_FILE)
    content.pop(name)
    save_file(
        content if value is None else content | {name: value}, tmp_path / TITLE_EMBEDDINGS_FILE
    )
    with pytest.raises(
        ModelLoadError,
        match=rf"{TITLE_EMBEDDINGS_FILE} holds no title embeddings of this base model",
    ):
        TitleEmbeddings.load(tmp_path, WIDTH)


def test_a_parameter_that_is_not_finite_is_refused_by_name(
    tmp_path: Path, model: LanguageModel
) -> None:
    memory = memory_of(model)
    memory.bias.data[1] = float("nan")
    memory.save(tmp_path)
    with pytest.raises(
        ModelLoadError, match=rf"{TITLE_EMBEDDINGS_FILE}: a parameter is not finite"
    ):
        TitleEmbeddings.load(tmp_path, WIDTH)


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 100])
def test_a_missing_or_damaged_file_is_refused_by_name(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / TITLE_EMBEDDINGS_FILE).write_bytes(content)
    with pytest.raises(ModelLoadError, match=TITLE_EMBEDDINGS_FILE):
        TitleEmbeddings.load(tmp_path, WIDTH)
