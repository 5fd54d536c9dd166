"""A vocabulary that can spell anything, models made of it, and several logs for one model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from llmrec.data.catalog import clean_text
from llmrec.data.readers import open_log
from llmrec.language.grammar import words_grammar
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
STRANGE = ("日本語", "Ünïcode & Co", "Щи/борщ", "naïve  café")


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
def test_what_is_encoded_decodes_to_what_was_written(model: LanguageModel, text: str) -> None:
    text = text.replace("▁", "")  # SentencePiece's own sign for a space
    (ids,) = model.encode([text])
    if "<unk>" not in text:
        assert model.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_name_of_a_byte_in_a_title_is_spelled_in_letters(model: LanguageModel) -> None:
    (spelled,) = model.encode([" <0x0A> </s>"])
    assert "\n" not in model.tokenizer.decode(spelled)
    assert model.end not in spelled
    assert BYTE_LOGPROB < -100


def test_any_label_can_be_written(model: LanguageModel) -> None:
    for label in (*STRANGE, *LABELS):
        grammar = words_grammar([label], ["is rising"], max_claims=1)
        (written,) = model.generate(["What one takes:"], constrain=grammar)
        assert written.finished
        assert written.text == f"{label} is rising."


def test_a_vocabulary_without_room_for_letters_and_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size 300 is too small"):
        train_tokenizer(TEXTS, 300)


@pytest.mark.parametrize("new", NEW_MODELS.values())
def test_heads_that_do_not_divide_the_width_are_refused(new: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="32 is not divisible by 5"):
        new(TEXTS, d_model=32, heads=5)


@pytest.mark.parametrize("new", NEW_MODELS.values())
def test_the_seed_decides_the_first_parameters_and_leaves_the_generator_alone(
    new: Callable[..., Any],
) -> None:
    sizes = {"vocab_size": 700, "d_model": 16, "layers": 1, "d_ff": 16}
    before = torch.random.get_rng_state()
    made = [new(TEXTS, **sizes, seed=seed)[0].get_input_embeddings().weight for seed in (1, 1, 2)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert torch.equal(before, torch.random.get_rng_state())


def test_labels_are_those_of_the_log_as_the_table_embeds_them_now(model: LanguageModel) -> None:
    several = MultiDatasetModel(
        model, CategoryHead(32, 4), {"a": ["Drama", "Comedy"], "b": ["War"]}, line_weight=0.1
    )
    first, table = several.of("a").names.clone(), model.model.get_input_embeddings().weight
    assert first.shape == (2, 32)
    assert several.of("b").names.shape == (1, 32)
    kept = table.detach().clone()
    with torch.no_grad():
        table.normal_()
    assert not torch.allclose(several.of("a").names, first)
    with torch.no_grad():
        table.copy_(kept)
    assert torch.equal(several.of("a").names, first)
    trained = [name for name, _ in several.named_parameters()]
    assert {name.partition(".")[0] for name in trained} == {"model", "readout"}


class Counted:
    """Batches that are their own number."""

    def __init__(self, n: int) -> None:
        self.n = n

    def epoch(self, n: int) -> list[object]:
        return [lambda at=at: {"at": (n, at)} for at in range(self.n)]


def test_each_batch_of_each_log_comes_once_an_epoch_in_an_order_of_its_seed() -> None:
    def order(seed: int, epoch: int) -> list[tuple[str, tuple[int, int]]]:
        pooled = MultiDatasetBatches({"a": Counted(5), "b": Counted(7)}, seed)  # type: ignore[dict-item]
        return [(batch["log"], batch["at"]) for batch in (make() for make in pooled.epoch(epoch))]

    assert order(0, 3) == order(0, 3) != order(1, 3)
    assert sorted(order(0, 3)) == [
        (log, (3, at)) for log, n in (("a", 5), ("b", 7)) for at in range(n)
    ]
    assert [log for log, _ in order(0, 3)] != [log for log, _ in order(0, 4)]


def test_made_up_logs_have_people_and_labels_of_their_own() -> None:
    one, again, two = (open_log(f"synthetic-{seed}") for seed in (1, 1, 2))
    assert one.name == "synthetic-1"
    assert one.catalog.categories == again.catalog.categories != two.catalog.categories
    assert one.log.fingerprint == again.log.fingerprint != two.log.fingerprint
    plain = open_log("synthetic").catalog
    for item in range(plain.n_items):
        (named,), (name,) = one.catalog.categories_of(item), plain.categories_of(item)
        assert named.endswith(f" {name}")
