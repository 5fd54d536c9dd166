"""Titles and category names as data writes them: texts, lists, and lists written as text."""

from __future__ import annotations

import ast
import csv
import html
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd

from llmrec.data.ids import MISSING_WORDS, format_id

MAX_TITLE_LENGTH, MAX_CATEGORY_LENGTH = 200, 60  # characters of a cleaned title and category name
DEFAULT_SEPARATOR = "|"
_MAX_NAME_LENGTH = 1_000  # of a category name before it is shortened
_MAX_CELL_LENGTH = 100_000  # of the categories of an item, written as text
_MAX_DEPTH = 8  # of lists within lists
# Control, format (bidirectional, zero-width), surrogate, private, unassigned.
_INVISIBLE_UNICODE_CLASSES = {"Cc", "Cf", "Cs", "Co", "Cn"}
_BLANKS = dict.fromkeys((0x115F, 0x1160, 0x2800), " ")  # letters and signs without any ink
# Of marks above and below a letter; more than UTS 39 (5.4) would let pass spill over other lines.
_MAX_MARKS = 4
_MAX_REPEATS = 3  # of a piece in a row that say something: "Tora! Tora! Tora!"
_MAX_NUMBER_LENGTH = 7  # a million is not a one
_REPEATED = re.compile(rf"(.{{1,{MAX_CATEGORY_LENGTH}}}?)(?: ?\1){{{_MAX_REPEATS},}}")
# Where the name of a thing stands, the first that is there.
_NAME_KEYS = ("name", "title", "label", "value", "genre", "category", "tag", "description")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
# A string without its closing quote reaches to the end: to look for others inside it would take
# time that grows with the square of its length.
_QUOTED = re.compile(
    r"""'((?:[^'\\]|\\.)*+)(?:'|\Z)|"((?:[^"\\]|\\.)*+)(?:"|\Z)""", flags=re.DOTALL
)
_QUOTED_OR_MISSING = re.compile(rf"{_QUOTED.pattern}|\b(?:nan|NaN|NaT)\b|<NA>", flags=re.DOTALL)


def clean_text(value: object, limit: int = MAX_TITLE_LENGTH) -> str:
    """Make text from data safe to print and to prompt with.

    NFKC; control, bidirectional and zero-width characters gone, and of the marks of a letter all
    but four; white space collapsed; at most ``limit`` characters, the last one an ellipsis if it
    was cut.
    """
    text = "" if is_missing(value) else str(value)
    text = text[: limit * 8]  # a 10 MB title must not cost 10 MB of work
    if not text.isprintable():
        text = "".join(
            " " if char.isspace() else char
            for char in text
            if char.isspace() or unicodedata.category(char) not in _INVISIBLE_UNICODE_CLASSES
        )
    text = unicodedata.normalize("NFKC", text)
    if not text.isascii():
        text = _limit_marks(text.translate(_BLANKS))
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def collapse_repeats(text: str) -> str:
    """Write a piece once that stands more than three times in a row: "Ha! Ha! Ha! Ha!" is "Ha!".

    A model that reads a title as the mean of its tokens would be pulled by the one that fills it.
    """
    return _REPEATED.sub(_once, text)


def _once(found: re.Match[str]) -> str:
    is_number = found[0].isdigit() and len(found[0]) <= _MAX_NUMBER_LENGTH
    return found[0] if is_number else found[1].rstrip()


def _limit_marks(text: str) -> str:
    """Leave out the marks of a letter beyond the fourth."""
    found, n_marks = [], 0
    for char in text:
        n_marks = n_marks + 1 if unicodedata.category(char) in ("Mn", "Me") else 0
        if n_marks <= _MAX_MARKS:
            found.append(char)
    return "".join(found)


def clean_title(value: object) -> str:
    """Clean a title, entities of HTML undone once; "" where it is missing."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return "" if _is_missing_word(value) else clean_text(undo_entities(format_id(value)))


def undo_entities(text: str) -> str:
    """Undo entities of HTML once: &amp; is &, and &amp;lt; is &lt;."""
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text) if "&" in text else text


def split_names(value: Any, separator: str | None = None) -> tuple[str, ...]:
    """Give the cleaned, distinct category names of one cell, in order.

    Parameters
    ----------
    value
        A list (lists within it are paths, mappings have a name); the same written as text, by
        Python, JSON, numpy or PostgreSQL; a text that ``separator`` cuts; or one name.
    separator
        None: "|".
    """
    return tuple(dict.fromkeys(name for name, _ in spell_names(value, separator)))


def spell_names(value: Any, separator: str | None = None) -> Iterable[tuple[str, str]]:
    """Give each cleaned category name of one cell, and how it was written but for white space."""
    for part in _parts(value, separator or DEFAULT_SEPARATOR, _MAX_DEPTH):
        name = clean_text(part, _MAX_NAME_LENGTH)
        if name and name not in MISSING_WORDS:
            yield name, " ".join(part[:_MAX_NAME_LENGTH].split())


def shorten_names(names: Sequence[str]) -> list[str]:
    """Cut long names; those that would then be equal end in a number."""
    result: dict[str, None] = {}
    numbers: dict[str, int] = {}  # of each beginning the last that is taken: not to try all again
    for name in names:
        short = clean_text(name, MAX_CATEGORY_LENGTH)
        if short in result:
            start = clean_text(name, MAX_CATEGORY_LENGTH - 6)
            n = numbers.get(start, 1)
            while short in result:
                n += 1
                short = f"{start} {n}"
            numbers[start] = n
        result[short] = None
    return list(result)


def is_missing(value: object) -> bool:
    """Whether a value stands for none: None, NaN, NaT or NA."""
    if value is None or value is pd.NA:
        return True
    return isinstance(value, (float, np.floating, type(pd.NaT))) and value != value


def _is_missing_word(value: object) -> bool:
    return is_missing(value) or (isinstance(value, str) and value.strip() in MISSING_WORDS)


def _parts(value: Any, separator: str, depth: int) -> Iterable[str]:
    """Give the names in a value, entities of HTML undone once, none cleaned."""
    if is_missing(value) or depth == 0:
        return
    if isinstance(value, str):
        yield from _parts_of_text(value, separator, depth)
    elif isinstance(value, Mapping):
        yield from _parts_of_mapping(value, separator, depth)
    elif isinstance(value, (bytes, bytearray)):
        yield from _parts_of_text(value.decode("utf-8", "replace"), separator, depth)
    elif isinstance(value, Iterable):
        yield from _parts_of_members(value, separator, depth)
    else:
        yield format_id(value)


def _parts_of_members(members: Iterable[Any], separator: str, depth: int) -> Iterable[str]:
    for part in members:
        if isinstance(part, str):  # one name: "Hair, Care|Skin" is not cut again
            yield undo_entities(part)
        else:
            yield from _parts(part, separator, depth - 1)


def _parts_of_mapping(value: Mapping[Any, Any], separator: str, depth: int) -> Iterable[str]:
    """Give the name of a thing; of a mapping without one its keys that are not 0 or false."""
    named = [key for key in _NAME_KEYS if isinstance(value.get(key), (str, Number))]
    if named:
        yield undo_entities(format_id(value[named[0]]))
    elif all(isinstance(weight, Number) for weight in value.values()):
        yield from (undo_entities(str(key)) for key, weight in value.items() if weight)
    else:
        yield from _parts_of_members(value.values(), separator, depth)


def _parts_of_text(text: str, separator: str, depth: int) -> Iterable[str]:
    text = text[:_MAX_CELL_LENGTH].strip()
    if len(text) >= 2 and text[0] + text[-1] in ("[]", "{}", "()"):
        found = _parse_list(text)
        if found is not None:
            yield from _parts(found, separator, depth - 1)
            return
        if _has_lost_quotes(text) and not set("[]") & set(text[1:-1]):
            text = text[1:-1]
    # The sign that ends an entity may be the separator.
    yield from undo_entities(text).split(separator)


def _parse_list(text: str) -> Any:
    """Read a list or mapping that was written as text; None if it is none."""
    strings = [single or double for single, double in _QUOTED.findall(text)]
    rest = _QUOTED.sub("", text)
    if len(strings) > 1 and rest[-1:] == "]" and not set(rest) - set("[] \n\t"):
        return strings  # numpy writes no commas, and Python would read one long string
    for parse in (json.loads, _parse_python):
        try:
            found = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return sorted(found, key=str) if isinstance(found, (set, frozenset)) else found
    if text[0] == "{":  # an array of PostgreSQL
        return next(csv.reader([text[1:-1]]), [])
    if _has_lost_quotes(text) and "," in text:
        return [part.strip() for part in text[1:-1].split(",")]
    return None


def _has_lost_quotes(text: str) -> bool:
    """Whether a text in brackets may be a list whose names had quotes once: [Women's, Men's]."""
    return text[0] == "[" and not set("'\"") & {text[1], text[-2]}


def _parse_python(text: str) -> Any:
    """Read a list or mapping that Python or pandas wrote; an error of Python's if it is none."""
    return ast.literal_eval(
        _QUOTED_OR_MISSING.sub(lambda one: one[0] if one[0][0] in "'\"" else "None", text)
    )
