"""A tokenizer that can encode anything, models with its vocabulary, and several logs at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from llmrec.data.names import clean_text
from llmrec.language.grammar import description_grammar
from llmrec.language.heads import CategoryHead
from llmrec.language.model import LanguageModel
from llmrec.language.tokenization import pooled_position
from llmrec.training.pretrain import (
    BYTE_LOGPROB,
    NEW_MODELS,
    MultiDatasetBatches,
    MultiDatasetModel,
    train_tokenizer,
)
from tests.language.tiny_models import LABELS, SENTENCES

TEXTS = [
    f"What one takes:{pooled_position([' Title', ' Drama'])}{sentence}" for sentence in SENTENCES
]
UNSEEN_LABELS = ("日本語", "Ünïcode & Co", "Щи/борщ", "naïve  café")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, 700)


@pytest.fixture(scope="module", params=NEW_MODELS)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    folder = tmp_path_factory.mktemp("new")
    for part in NEW_MODELS[request.param](
        TEXTS, vocab_size=700, d_model=32, layers=1, d_ff=48, seed=1
    ):
        part.save_pretrained(folder)
    return LanguageModel.load(str(folder), device="cpu")


@given(st.text(max_size=60).map(clean_text))
@example("</s>")
@example("a <pad> b")
def test_an_encoded_text_decodes_to_the_same_text(model: LanguageModel, text: str) -> None:
    text = text.replace("▁", "")  # SentencePiece's own sign for a space
    (ids,) = model.encode([text])
    if "<unk>" not in text:
        assert model.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_piece_of_a_byte_in_a_title_is_encoded_as_letters(model: LanguageModel) -> None:
    (ids,) = model.encode([" <0x0A> </s>"])
    assert "\n" not in model.tokenizer.decode(ids)
    assert model.end_token_id not in ids
    assert BYTE_LOGPROB < -100


def test_any_label_can_be_generated(model: LanguageModel) -> None:
    for label in (*UNSEEN_LABELS, *LABELS):
        grammar = description_grammar([label], ["is rising"], max_claims=1)
        (line,) = model.generate(["What one takes:"], constrain=grammar)
        assert line.finished
        assert line.text == f"{label} is rising."


def test_a_vocabulary_that_is_too_small_for_letters_and_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size 300 is too small"):
        train_tokenizer(TEXTS, 300)


@pytest.mark.parametrize("build", NEW_MODELS.values())
def test_heads_that_do_not_divide_the_width_are_refused(build: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="32 is not divisible by 5"):
        build(TEXTS, d_model=32, heads=5)


@pytest.mark.parametrize("build", NEW_MODELS.values())
def test_parameters_depend_on_the_seed_and_the_global_generator_stays_as_it_is(
    build: Callable[..., Any],
) -> None:
    sizes = {"vocab_size": 700, "d_model": 16, "layers": 1, "d_ff": 16}
    before = torch.random.get_rng_state()
    models = [build(TEXTS, **sizes, seed=seed)[0] for seed in (1, 1, 2)]
    tables = [model.get_input_embeddings().weight for model in models]
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_labels_are_those_of_the_log_embedded_by_the_current_table(model: LanguageModel) -> None:
    several = MultiDatasetModel(
        model, CategoryHead(32, 4), {"a": ["Drama", "Comedy"], "b": ["War"]}, line_weight=0.1
    )
    first = several.select("a").label_embeddings.clone()
    table = model.model.get_input_embeddings().weight
    assert first.shape == (2, 32)
    assert several.select("b").label_embeddings.shape == (1, 32)
    before = table.detach().clone()
    with torch.no_grad():
        table.normal_()
    assert not torch.allclose(several.select("a").label_embeddings, first)
    with torch.no_grad():
        table.copy_(before)
    assert torch.equal(several.select("a").label_embeddings, first)
    names = [name for name, _ in several.named_parameters()]
    assert {name.partition(".")[0] for name in names} == {"model", "category_head"}


class NumberedBatches:
    """Batches that hold their epoch and number."""

    def __init__(self, n: int) -> None:
        self.n = n

    def epoch(self, n: int) -> list[object]:
        return [lambda at=at: {"at": (n, at)} for at in range(self.n)]


def test_each_batch_of_each_log_is_in_an_epoch_once_in_an_order_of_its_seed() -> None:
    def order(seed: int, epoch: int) -> list[tuple[str, tuple[int, int]]]:
        logs = {"a": NumberedBatches(5), "b": NumberedBatches(7)}
        batches = MultiDatasetBatches(logs, seed).epoch(epoch)  # type: ignore[arg-type]
        return [(batch["log"], batch["at"]) for batch in (make() for make in batches)]

    assert order(0, 3) == order(0, 3) != order(1, 3)
    assert sorted(order(0, 3)) == [
        (log, (3, at)) for log, n in (("a", 5), ("b", 7)) for at in range(n)
    ]
    assert [log for log, _ in order(0, 3)] != [log for log, _ in order(0, 4)]
