"""Text and JSON that hold no character which a terminal or browser would act on, and not show."""

from __future__ import annotations

import json
from typing import Any

REPLACEMENT = "�"


def printable(text: str) -> str:
    """Give a text with a sign for each control, bidirectional or other invisible character.

    Line breaks stay, and other white space becomes a space.
    """
    if text.replace("\n", "").isprintable():
        return text
    return "".join(map(_printable_character, text))


def to_json(value: Any) -> str:
    """Give a value as JSON in which every character prints; the others are escaped.

    It parses back to the same value. What JSON does not know, such as a time, is its text.
    """
    return escape_unprintable(json.dumps(value, ensure_ascii=False, indent=1, default=str))


def escape_unprintable(text: str) -> str:
    """Give JSON that parses back to the same, in which every character prints."""
    if text.replace("\n", "").isprintable():
        return text
    # Line breaks stand between values: those inside of texts are escaped already.
    return "".join(c if c == "\n" or c.isprintable() else json.dumps(c)[1:-1] for c in text)


def _printable_character(character: str) -> str:
    if character == "\n" or character.isprintable():
        return character
    return " " if character.isspace() else REPLACEMENT
