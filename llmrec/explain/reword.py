"""Explanations in a language model's words: it chooses among true sentences, and is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from llmrec.errors import DataError
from llmrec.explain.item import ItemExplanation
from llmrec.language.grammar import sentences_grammar

if TYPE_CHECKING:
    from llmrec.language.model import LanguageModel


def reword(
    model: LanguageModel | None, explanations: Sequence[ItemExplanation]
) -> list[ItemExplanation]:
    """Give the explanations with texts that the model composes of true sentences.

    It chooses a variant of each sentence of the text, and statements of the forecast to follow. If
    a text has anything else, it is rejected: the plain text stays, and ``rejection`` says why.

    Raises
    ------
    DataError
        If there is no model.
    """
    if model is None:
        raise DataError("this engine has no language model that could reword: load it with one")
    grammars = [
        sentences_grammar(one.sentence_variants, _statement_sentences(one)) for one in explanations
    ]
    prompts = [_prompt(one) for one in explanations]
    lines = model.generate(prompts, constrain=grammars) if prompts else []
    found = []
    for explanation, line in zip(explanations, lines, strict=True):
        rejection = unsupported_text(line.text, explanation)
        text = "" if rejection else line.text.strip()
        found.append(replace(explanation, model_text=text, rejection=rejection))
    return found


def wording_note(explanations: Sequence[ItemExplanation]) -> str:
    """Give a line on how many texts are the model's, and how many were rejected; "" if none is."""
    n_reworded = sum(bool(one.model_text) for one in explanations)
    n_rejected = sum(bool(one.rejection) for one in explanations)
    if not n_reworded + n_rejected:
        return ""
    reworded = f"{n_reworded} of {len(explanations)} reasons are in the model's words"
    return f"{reworded}; {n_rejected} did not hold and are not shown."


def unsupported_text(text: str, explanation: ItemExplanation) -> str:
    """Describe the part of a text that is none of an explanation's sentences, each once; or "".

    The explanation's own numbers are assumed to be true: `check_item` checks them.
    """
    rest = text.strip()
    if not rest:
        return "nothing is said"
    statements = ((sentence,) for sentence in _statement_sentences(explanation))
    for variants in (*explanation.sentence_variants, *statements):
        sentence = max((one for one in variants if rest.startswith(one)), key=len, default="")
        rest = rest.removeprefix(sentence).lstrip()
    return f"{rest[:80]!r} is no true sentence here" if rest else ""


def _statement_sentences(explanation: ItemExplanation) -> list[str]:
    return [statement.text for statement in explanation.statements]


def _prompt(explanation: ItemExplanation) -> str:
    plain = [variants[0] for variants in explanation.sentence_variants]
    facts = "\n".join(f"- {one}" for one in [*plain, *_statement_sentences(explanation)])
    return f"What is known of {explanation.title}:\n{facts}\nWhy it is on the list:"
