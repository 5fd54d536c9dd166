"""Grammars of the lines a model may generate, in llguidance's Lark dialect; phrases of claims.

Each grammar is one regular expression, so no lexer has to guess where a label ends: a label may
start with another one, end in a digit or hold a dot, and still every line is possible. The
numbers of entries and claims are bounded, so a constrained line always comes to its end.

Every text starts with a space: a prompt ends right after a colon, and both byte-level BPE and
SentencePiece keep the space inside the first word (" Drama" is one token).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from llmrec.forecast import STATEMENT_KINDS, StatementKind


def line_grammar(
    labels: Sequence[str], phrases: Sequence[str], *, max_entries: int = 8, max_claims: int = 4
) -> str:
    """Give the grammar of whole forecast lines.

    Such a line is `` Drama 31%, Comedy 22%, other 47%: Drama is rising, Comedy is fading.``: 1 to
    ``max_entries`` named entries, then ``other``, then 1 to ``max_claims`` claims. Named entries
    have 1 to 100 percent, except that a line may be ``Drama 0%, other 100%``; so the percents of a
    line are never all 0.

    Raises
    ------
    ValueError
        If there are no labels or no phrases, or a bound is below 1.
    """
    _check_bound("max_entries", max_entries)
    return f"""start: LINE
LINE: " " (NAMED | NOTHING_NAMED) ":" WORDS
NAMED: (LABEL " " POSITIVE "%, "){{1,{max_entries}}} "other " PERCENT "%"
NOTHING_NAMED: LABEL " 0%, other 100%"
PERCENT: /100|[1-9]?[0-9]/
POSITIVE: /100|[1-9][0-9]?/
{_description_rules(labels, phrases, max_claims)}"""


def description_grammar(
    labels: Sequence[str], phrases: Sequence[str], *, max_claims: int = 4
) -> str:
    """Give the grammar of what follows the colon: `` Drama is rising, Comedy is fading.``.

    Raises
    ------
    ValueError
        If there are no labels or no phrases, or ``max_claims`` is below 1.
    """
    return "start: WORDS\n" + _description_rules(labels, phrases, max_claims)


def claims_grammar(variants: Sequence[Sequence[str]], *, max_claims: int = 4) -> str:
    """Give the grammar of a description that makes given claims only.

    Parameters
    ----------
    variants
        The variants of each claim: 1 to ``max_claims`` claims are made, in this order, none twice.

    Raises
    ------
    ValueError
        If there are no claims, or a claim has no variant, or ``max_claims`` is below 1.
    """
    _check_bound("max_claims", max_claims)
    if not variants:
        raise ValueError("there are no claims to make")
    rules = ["start: WORDS", f'WORDS: " " FROM_0_{max_claims} "."']
    for i, texts in enumerate(variants):
        rules.append(f"CLAIM_{i}: {_join_alternatives('variants of a claim', texts)}")
        is_last = i == len(variants) - 1
        for left in range(1, max_claims + 1):
            more = "" if is_last or left == 1 else f' (", " FROM_{i + 1}_{left - 1})?'
            later = "" if is_last else f" | FROM_{i + 1}_{left}"
            rules.append(f"FROM_{i}_{left}: CLAIM_{i}{more}{later}")
    return "\n".join(rules)


def sentences_grammar(required: Sequence[Sequence[str]], optional: Sequence[str] = ()) -> str:
    """Give the grammar of a text of given sentences, in their order.

    Parameters
    ----------
    required
        The variants of each sentence that must be there.
    optional
        Sentences that may follow.

    Raises
    ------
    ValueError
        If no sentence is required, or one has no variant.
    """
    if not required:
        raise ValueError("there are no sentences to write")
    text = [
        f'" " ({_join_alternatives("variants of a sentence", variants)})' for variants in required
    ]
    text += [f'(" " {_join_alternatives("sentences", [sentence])})?' for sentence in optional]
    return f"start: WORDS\nWORDS: {' '.join(text)}"


def to_gbnf(grammar: str) -> str:
    """Give a grammar of this module without regular expressions in llama.cpp's dialect."""
    rules = [line.partition(": ") for line in grammar.replace("start", "root", 1).splitlines()]
    text = "\n".join(f"{name} ::= {body}" for name, _, body in rules if name)
    # Names have no "_" there; strings, which hold labels, stay as they are.
    return re.sub(r'"(?:[^"\\]|\\.)*"|_', lambda part: part[0] if len(part[0]) > 1 else "-", text)


def _description_rules(labels: Sequence[str], phrases: Sequence[str], max_claims: int) -> str:
    _check_bound("max_claims", max_claims)
    more = f'(", " CLAIM){{0,{max_claims - 1}}}' if max_claims > 1 else ""  # {0,0} is no range
    return f"""WORDS: " " CLAIM {more} "."
CLAIM: LABEL " " PHRASE
LABEL: {_join_alternatives("labels", labels)}
PHRASE: {_join_alternatives("phrases", phrases)}
"""


def _join_alternatives(what: str, texts: Sequence[str]) -> str:
    if not texts or not all(texts):
        raise ValueError(f"{what} must hold at least one text and no empty one, not {texts!r:.200}")
    # Lark's strings have JSON's quotes and escapes.
    return " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def _check_bound(name: str, bound: int) -> None:
    if bound < 1:
        raise ValueError(f"{name} must be at least 1, not {bound}")


# A phrase fits after any label, singular or plural. None is the end of another one: so a claim
# divides into label and phrase in one way only.
PHRASES_BY_KIND: dict[StatementKind, tuple[str, ...]] = {
    "again": (
        "once more",
        "as usual",
        "still on the list",
        "set to go on",
        "will be there again",
    ),
    "nothing of": (
        "set to pause",
        "taking a break",
        "off the list",
        "should not come up",
        "will not be there",
    ),
    "rising": (
        "is rising",
        "on the way up",
        "gaining ground",
        "set to grow",
        "should pick up",
        "will take a larger share",
    ),
    "fading": (
        "is fading",
        "on the way down",
        "losing ground",
        "set to shrink",
        "should slow down",
        "will take a smaller share",
    ),
    "steady": (
        "holding steady",
        "little changed",
        "much as before",
        "set to stay",
        "should stay level",
        "with no change in sight",
    ),
    "new": (
        "for the first time",
        "as something new",
        "new on the list",
        "about to begin",
        "should make a start",
    ),
    "returning": (
        "coming back",
        "back after a pause",
        "set to return",
        "on the way back",
        "should come back",
    ),
}
KIND_BY_PHRASE: dict[str, StatementKind] = {
    text: kind for kind, texts in PHRASES_BY_KIND.items() for text in texts
}
# What a model may write; the phrases of version 0.1 beside them are read.
PHRASES = tuple(text for text, kind in KIND_BY_PHRASE.items() if kind in STATEMENT_KINDS)
