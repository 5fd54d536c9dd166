from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from llmrec.explain.item import ItemExplanation
from llmrec.explain.reword import reword, unsupported_text, wording_note
from llmrec.explain.verify import check_item
from llmrec.language.generation import Generation
from llmrec.language.grammar import sentences_grammar
from llmrec.language.model import LanguageModel
from tests.explain.test_verify import Person, world
from tests.language.tiny_models import save_llama


def items(person: Person) -> list[ItemExplanation]:
    found = [person.explain(item).item for item in range(0, 26, 5)]
    return [item for item in found if item]


class FixedModel:
    """A model that generates the same text, whatever the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text

    def generate(self, prompts: Sequence[str], *, constrain: Sequence[str]) -> list[Generation]:
        return [Generation(self.text, 1, 1, True) for _ in prompts]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder: Path = save_llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=2048)
    return LanguageModel.load(str(folder), device="cpu")


def test_reworded_texts_consist_of_true_sentences_and_pass_the_checker(
    model: LanguageModel,
) -> None:
    for person in world(0)[:2]:
        plain_items = items(person)
        for plain, reworded in zip(plain_items, reword(model, plain_items), strict=True):
            assert reworded.model_text
            assert reworded.text == reworded.model_text
            assert reworded.rejection == ""
            assert replace(reworded, model_text="") == plain
            assert check_item(reworded, person.rerank(()), person.history, person.forecast) == ()


def test_an_unsupported_text_is_rejected_with_a_reason() -> None:
    plain_items = items(world(0)[0])
    for text in ("Everybody loves it.", plain_items[0].text.replace("forecast", "certain"), ""):
        for plain, reworded in zip(plain_items, reword(FixedModel(text), plain_items), strict=True):  # type: ignore[arg-type]
            assert reworded.text == plain.text
            assert reworded.rejection
            assert reworded.to_dict()["refused"] == reworded.rejection


def test_unsupported_text_after_a_true_sentence_is_found() -> None:
    plain_items = items(world(0)[0])[0]
    assert unsupported_text(plain_items.text, plain_items) == ""
    assert (
        unsupported_text(f"{plain_items.text} It is cheap.", plain_items)
        == "'It is cheap.' is no true sentence here"
    )
    assert "no true sentence" in unsupported_text(
        f"{plain_items.text} {plain_items.text}", plain_items
    )


def test_without_an_item_the_model_is_not_called(model: LanguageModel) -> None:
    assert reword(model, []) == []


def test_a_grammar_of_no_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match="no sentences to write"):
        sentences_grammar([])


def test_one_line_counts_the_reworded_and_the_rejected_texts() -> None:
    plain = items(world(0)[0])
    refused = reword(FixedModel("Everybody loves it."), plain)  # type: ignore[arg-type]
    some = [replace(plain[0], model_text=plain[0].text), *refused[1:]]
    assert wording_note(plain) == ""
    assert wording_note(some) == (
        f"1 of {len(plain)} reasons are in the model's words; "
        f"{len(plain) - 1} did not hold and are not shown."
    )
