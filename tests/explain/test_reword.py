from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from llmrec.explain.item import ItemExplanation, reword, unsupported_text, wording_note
from llmrec.explain.verify import check_item
from llmrec.language.generation import Generation
from llmrec.language.grammar import sentences_grammar
from llmrec.language.model import LanguageModel
from tests.explain.test_verify import Person, world
from tests.language.tiny_models import save_llama


def items(person: Person) -> list[ItemExplanation]:
    found = [person.explain(item).item for item in range(0, 26, 5)]
    return [item for item in found if item]


class Writes:
    """A model that writes one and the same, whatever it may."""

    def __init__(self, text: str) -> None:
        self.text = text

    def generate(self, prompts: Sequence[str], *, constrain: Sequence[str]) -> list[Generation]:
        return [Generation(self.text, 1, 1, True) for _ in prompts]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder: Path = save_llama(tmp_path_factory.mktemp("llama"), max_position_embeddings=2048)
    return LanguageModel.load(str(folder), device="cpu")


def test_what_the_model_words_is_made_of_true_sentences_and_passes_the_checker(
    model: LanguageModel,
) -> None:
    for person in world(0)[:2]:
        told = items(person)
        for plain, said in zip(told, reword(model, told), strict=True):
            assert said.model_text
            assert said.text == said.model_text
            assert said.rejection == ""
            assert replace(said, model_text="") == plain
            assert check_item(said, person.rerank(()), person.history, person.forecast) == ()


def test_what_does_not_hold_is_not_shown_and_the_reason_is() -> None:
    told = items(world(0)[0])
    for lie in ("Everybody loves it.", told[0].text.replace("forecast", "certain"), ""):
        for plain, said in zip(told, reword(Writes(lie), told), strict=True):  # type: ignore[arg-type]
            assert said.text == plain.text
            assert said.rejection
            assert said.to_dict()["refused"] == said.rejection


def test_a_lie_behind_a_true_sentence_is_found() -> None:
    told = items(world(0)[0])[0]
    assert unsupported_text(told.text, told) == ""
    assert (
        unsupported_text(f"{told.text} It is cheap.", told)
        == "'It is cheap.' is no true sentence here"
    )
    assert "no true sentence" in unsupported_text(f"{told.text} {told.text}", told)


def test_without_an_item_nothing_is_asked(model: LanguageModel) -> None:
    assert reword(model, []) == []


def test_a_grammar_of_no_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match="no sentences to write"):
        sentences_grammar([])


def test_one_line_sums_up_how_much_of_a_list_is_in_the_models_words() -> None:
    plain = items(world(0)[0])
    refused = reword(Writes("Everybody loves it."), plain)  # type: ignore[arg-type]
    some = [replace(plain[0], model_text=plain[0].text), *refused[1:]]
    assert wording_note(plain) == ""
    assert wording_note(some) == (
        f"1 of {len(plain)} reasons are in the model's words; "
        f"{len(plain) - 1} did not hold and are not shown."
    )
