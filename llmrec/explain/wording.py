"""An explanation in the language model's words: it chooses among true sentences, and is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from llmrec.explain.item import ItemExplanation
from llmrec.language.grammar import sentences_grammar

if TYPE_CHECKING:
    from llmrec.language.model import LanguageModel


def worded(model: LanguageModel, explanations: Sequence[ItemExplanation]) -> list[ItemExplanation]:
    """Give the explanations with texts that the model made of what is true of each.

    It chooses how each fact of the text is put, and which statements of the forecast follow. Where
    what it wrote does not hold, the text stays the plain one and ``refused`` says why.
    """
    grammars = [sentences_grammar(made.facts, _statements(made)) for made in explanations]
    prompts = [_prompt(made) for made in explanations]
    lines = model.generate(prompts, constrain=grammars) if prompts else []
    return [
        replace(made, worded="", refused=lie)
        if (lie := untrue(line.text, made))
        else replace(made, worded=line.text.strip(), refused="")
        for made, line in zip(explanations, lines, strict=True)
    ]


def wording_note(explanations: Sequence[ItemExplanation]) -> str:
    """Say how many texts of a list are the model's, and how many did not hold; "" if none is asked.

    One short line (plain text, no markup).
    """
    said = sum(bool(made.worded) for made in explanations)
    refused = sum(bool(made.refused) for made in explanations)
    if not said + refused:
        return ""
    kept = f"{said} of {len(explanations)} reasons are in the model's words"
    return f"{kept}; {refused} did not hold and are not shown."


def untrue(text: str, explanation: ItemExplanation) -> str:
    """Say what of a text is none of the true sentences of an explanation, each once; "" if all is.

    The explanation's own numbers are taken for true: `check_item` checks them.
    """
    rest = text.strip()
    if not rest:
        return "nothing is said"
    for ways in (*explanation.facts, *((sentence,) for sentence in _statements(explanation))):
        said = max((way for way in ways if rest.startswith(way)), key=len, default="")
        rest = rest.removeprefix(said).lstrip()
    return f"{rest[:80]!r} is no true sentence here" if rest else ""


def _statements(explanation: ItemExplanation) -> list[str]:
    return [told.text for told in explanation.statements]


def _prompt(explanation: ItemExplanation) -> str:
    plain = [ways[0] for ways in explanation.facts]
    facts = "\n".join(f"- {sentence}" for sentence in [*plain, *_statements(explanation)])
    return f"What is known of {explanation.title}:\n{facts}\nWhy it is on the list:"
