"""The forecast line: labels of categories, rendering, and the parser that reads it back.

A forecast line is one punctuated line: integer percents of the heaviest categories, then ``other``,
then claims in words::

    Drama 31%, Comedy 22%, other 47%: Drama is rising, Comedy is fading.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from llmrec.types import FloatArray, IntArray

OTHER = "other"
MAX_LINE_LENGTH = 4_000  # characters; a longer text is no forecast line
_UNSAFE = re.compile(r"[^\w &'/()\-+.]|_")
_ENTRY = re.compile(r"^(.+?)\s*\b([0-9]{1,3})\s?%$")


def make_labels(categories: Sequence[str]) -> tuple[str, ...]:
    """Give each category a tokenizer-safe label, a bijection even if case is ignored.

    Letters, digits, spaces and ``& ' / ( ) - + .`` stay; anything else becomes a space; at most 40
    characters; collisions and the reserved word ``other`` get a number.
    """
    labels: list[str] = []
    taken = {OTHER}
    for category in categories:
        plain = " ".join(_UNSAFE.sub(" ", unicodedata.normalize("NFKC", category)).split())
        stem = plain[:40].strip(" .") or "category"
        label, n = stem, 2
        while label.casefold() in taken:
            label, n = f"{stem} {n}", n + 1
        taken.add(label.casefold())
        labels.append(label)
    return tuple(labels)


_BRACES = str.maketrans("{}", "()")


def _whole_percents(shares: FloatArray) -> IntArray:
    """Integers that sum to 100: floors, then the largest remainders get one more."""
    scaled = shares / shares.sum() * 100
    whole: IntArray = np.floor(scaled + 1e-9).astype(np.int64)
    extra = np.argsort(-(scaled - whole), kind="stable")[: 100 - int(whole.sum())]
    whole[extra] += 1
    return whole
