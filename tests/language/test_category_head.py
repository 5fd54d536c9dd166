"""A new category head gives zeros; a trained one is loaded completely or not at all."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llmrec.errors import ModelLoadError
from llmrec.language.heads import CATEGORY_HEAD_FILE, CategoryHead, Verbalizer, label_embeddings
from llmrec.language.model import LanguageModel
from llmrec.language.tokenization import pooled_position
from tests.language.tiny_models import LABELS

WIDTH = 32
PROMPTS = [
    "Drama",
    f"To 3 Jan 1998:{pooled_position([' Drama 31%'])}{pooled_position([' Comedy'])}",
    "Comedy 22%, " * 5,
]


def trained(depth: int | None = None) -> CategoryHead:
    torch.manual_seed(2)
    head = CategoryHead(WIDTH, 4, depth)
    torch.nn.init.normal_(head.up.weight)
    return head.eval()


def test_a_new_head_gives_zero_for_every_category() -> None:
    scores = CategoryHead(WIDTH, 4)(torch.randn(5, WIDTH), torch.randn(7, WIDTH))
    assert scores.shape == (5, 7)
    assert not scores.any()


def test_a_new_head_can_learn() -> None:
    head = CategoryHead(WIDTH, 4)
    head(torch.randn(5, WIDTH), torch.randn(7, WIDTH)).pow(1).sum().backward()
    assert head.up.weight.grad is not None
    assert head.up.weight.grad.abs().max() > 0


def test_scores_do_not_depend_on_the_length_of_a_state_or_on_other_rows() -> None:
    head, states, names = trained(), torch.randn(5, WIDTH), torch.randn(7, WIDTH)
    scores = head(states, names)
    torch.testing.assert_close(head(states * 30, names), scores, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(head(states[2:3], names[4:]), scores[2:3, 4:])


def test_the_score_follows_the_formula() -> None:
    head, state, name = trained(), torch.randn(WIDTH), torch.randn(WIDTH)
    scaled = state / (state.pow(2).mean() + 1e-6).sqrt()
    expected = name @ head.up.weight @ head.down.weight @ scaled
    torch.testing.assert_close(head(state[None], name[None])[0, 0], expected)


@pytest.mark.parametrize("depth", [None, 1])
def test_a_head_is_loaded_as_it_was_saved(tmp_path: Path, depth: int | None) -> None:
    head = trained(depth)
    head.save(tmp_path)
    found = CategoryHead.load(tmp_path, WIDTH)
    assert found.depth == depth
    assert not found.training
    assert all(torch.equal(found.state_dict()[k], v) for k, v in head.state_dict().items())


def tensors() -> dict[str, torch.Tensor]:
    return {"down": torch.zeros(4, WIDTH), "up": torch.zeros(WIDTH, 4)}


@pytest.mark.parametrize(
    "content",
    [
        {"down": torch.zeros(4, WIDTH)},
        tensors() | {"down": torch.zeros(3, WIDTH)},
        tensors() | {"up": torch.zeros(WIDTH + 1, 4)},
        tensors() | {"down": torch.zeros(4)},
    ],
    ids=["up is missing", "two ranks", "another width", "no matrix"],
)
def test_a_head_of_other_shapes_is_refused_by_name(
    tmp_path: Path, content: dict[str, torch.Tensor]
) -> None:
    save_file(content, tmp_path / CATEGORY_HEAD_FILE)
    with pytest.raises(
        ModelLoadError, match=rf"{CATEGORY_HEAD_FILE} holds no category head of this base model"
    ):
        CategoryHead.load(tmp_path, WIDTH)


@pytest.mark.parametrize("depth", ["deep", "0", "-1", "1.5"])
def test_an_invalid_depth_is_refused_by_name(tmp_path: Path, depth: str) -> None:
    save_file(tensors(), tmp_path / CATEGORY_HEAD_FILE, {"depth": depth})
    with pytest.raises(ModelLoadError, match=rf"{CATEGORY_HEAD_FILE} holds no category head"):
        CategoryHead.load(tmp_path, WIDTH)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_parameter_that_is_not_finite_is_refused_by_name(tmp_path: Path, value: float) -> None:
    save_file(tensors() | {"up": torch.full((WIDTH, 4), value)}, tmp_path / CATEGORY_HEAD_FILE)
    with pytest.raises(ModelLoadError, match=rf"{CATEGORY_HEAD_FILE}: a parameter is not finite"):
        CategoryHead.load(tmp_path, WIDTH)


@pytest.mark.parametrize("content", [None, b"", b"not tensors", b"\xff" * 100])
def test_a_missing_or_damaged_file_is_refused_by_name(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / CATEGORY_HEAD_FILE).write_bytes(content)
    with pytest.raises(ModelLoadError, match=CATEGORY_HEAD_FILE):
        CategoryHead.load(tmp_path, WIDTH)


def test_a_truncated_file_is_refused_by_name(tmp_path: Path) -> None:
    trained().save(tmp_path)
    path = tmp_path / CATEGORY_HEAD_FILE
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ModelLoadError, match=CATEGORY_HEAD_FILE):
        CategoryHead.load(tmp_path, WIDTH)


def test_label_embeddings_have_length_one_and_average_their_tokens(model: LanguageModel) -> None:
    verbalizer = Verbalizer(LABELS, model.encode)
    table = model.model.get_input_embeddings().weight
    embeddings = label_embeddings(verbalizer, table)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(LABELS)))
    for label, embedding in zip(LABELS, embeddings, strict=True):
        mean = table[torch.tensor(model.encode([f" {label}"])[0])].mean(dim=0).detach()
        torch.testing.assert_close(embedding, mean / mean.norm())


def test_labels_are_embedded_without_a_table_of_labels_and_tokens() -> None:
    n, width = 3_000, 8
    labels = [f"{first} {first + n}" for first in range(n)]
    verbalizer = Verbalizer(labels, lambda texts: [[*map(int, text.split())] for text in texts])
    table = torch.randn((2 * n, width), generator=torch.Generator().manual_seed(0))
    tracemalloc.start()
    found = label_embeddings(verbalizer, table)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n * 2 * n  # bytes: a table has at least as many
    expected = (table[:n] + table[n:]) / 2
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True))


def test_a_category_scores_the_same_whatever_the_others_are(model: LanguageModel) -> None:
    with_head = LanguageModel("tiny", model.model, model.tokenizer, category_head=trained())
    scores = with_head.score_categories(PROMPTS, Verbalizer(LABELS, model.encode))
    some = with_head.score_categories(PROMPTS, Verbalizer(LABELS[2:4], model.encode))
    np.testing.assert_allclose(some, scores[:, 2:4], atol=1e-5)


def test_a_batch_scores_as_single_calls_do_in_any_order(model: LanguageModel) -> None:
    for depth in (None,) if model.is_encoder_decoder else (None, 1):
        with_head = LanguageModel(
            "tiny", model.model, model.tokenizer, category_head=trained(depth)
        )
        verbalizer = Verbalizer(LABELS, model.encode)
        together = with_head.score_categories(PROMPTS, verbalizer)
        alone = np.vstack([with_head.score_categories([prompt], verbalizer) for prompt in PROMPTS])
        assert together.dtype == np.float64
        np.testing.assert_allclose(together, alone, atol=1e-4)
        np.testing.assert_allclose(
            with_head.score_categories(PROMPTS[::-1], verbalizer)[::-1], alone, atol=1e-4
        )
        assert np.ptp(together, axis=0).min() > 1e-3


def test_a_model_without_a_head_scores_by_its_verbalizer(model: LanguageModel) -> None:
    verbalizer = Verbalizer(LABELS, model.encode)
    expected = verbalizer.scores(model.final_logits(PROMPTS, verbalizer.token_ids))
    assert (model.score_categories(PROMPTS, verbalizer) == expected).all()
