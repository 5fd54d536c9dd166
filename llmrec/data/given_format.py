"""Times in a format that is said: as strptime takes it, but no digits are moved between parts."""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

_WIDTHS = {"Y": 4, "j": 3, "y": 2, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2}
_TOGETHER = re.compile(r"((?:%[YjymdHMS]){2,})")
_LOSES_ZERO = ("%d", "%m", "%y")  # a spreadsheet makes 3042024 of 03042024


def parse_format(texts: pd.Series[str], form: str) -> pd.Series[Any]:
    """Read texts in a format of `strptime`; NaT where one is not in it.

    Parts that are written together need all their digits: strptime would read 2023111 as
    1 November under %Y%m%d. One zero may be lost at the beginning, where a day, a month or a year
    of two digits stands there.
    """
    pieces = _TOGETHER.split(form)
    widths = [sum(_WIDTHS[part] for part in piece[1::2]) for piece in pieces[1::2]]
    if widths:
        if not pieces[0] and form.startswith(_LOSES_ZERO):
            is_short = texts.str.match(rf"[0-9]{{{widths[0] - 1}}}(?:[^0-9]|$)")
            texts = texts.where(~is_short.to_numpy(bool), "0" + texts)
        together = iter(widths)
        pattern = "".join(
            f"[0-9]{{{next(together)}}}" if n % 2 else _any_of(piece)
            for n, piece in enumerate(pieces)
        )
        has_all_digits = texts.str.fullmatch(pattern, flags=re.IGNORECASE)
        texts = texts.where(has_all_digits.to_numpy(bool), "")
    return pd.to_datetime(texts, errors="coerce", utc=True, format=form)


def _any_of(piece: str) -> str:
    """Give a pattern of the signs of a format, and of anything where a part stands."""
    literal = re.escape(piece).replace(r"\ ", r"\s+")
    return re.sub("%.", ".+", literal)
