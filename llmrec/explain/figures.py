"""Matplotlib figures: made, given fonts that hold their characters, and written as SVG."""

from __future__ import annotations

import io
import unicodedata
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

from llmrec.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING_SIGN = "□"
REGULAR = ("normal", 400, "normal")  # style, weight, stretch


def new_figure(**options: Any) -> Figure:
    """Make an empty matplotlib figure; MissingExtraError if matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("charts need matplotlib: pip install 'llmrec[charts]'") from error
    return Figure(**options)


def to_svg(figure: Figure) -> str:
    """Give the figure as an SVG element; the texts in it are escaped."""
    import matplotlib

    content = io.StringIO()
    # Text stays text: it can be searched and read aloud, and the browser has fonts for what is
    # missing here, so that no warning is due. The salt keeps the bytes the same each time.
    options = {"svg.fonttype": "none", "svg.hashsalt": "llmrec"}
    with matplotlib.rc_context(options), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(content, format="svg", metadata={"Date": None})
    text = content.getvalue()
    return text[text.index("<svg") :]


def fit_fonts(figure: Figure) -> int:
    """Set fonts that draw the figure's texts as pixels, so that no glyph is missing.

    Other installed fonts are used for what the default one lacks; a character that none of them has
    becomes `MISSING_SIGN`.

    Returns
    -------
    int
        Number of distinct characters that no font has.
    """
    from matplotlib import rcParams
    from matplotlib.text import Text

    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    lacking = _without(set("".join(text.get_text() for text in texts)), _default_font())
    families, missing = _find_families(lacking)
    signs = str.maketrans({c: "" if unicodedata.combining(c) else MISSING_SIGN for c in missing})
    for text in texts:
        if not lacking.isdisjoint(text.get_text()):
            text.set_text(text.get_text().translate(signs))
            # The weight is regular, as that of the families found: they may have no other.
            text.set(fontfamily=[*rcParams["font.family"], *families], fontweight="normal")
    return len(missing)


def _find_families(lacking: set[str]) -> tuple[list[str], set[str]]:
    """Give as few families as it takes, and the characters that none has."""
    from matplotlib.font_manager import FontPath, fontManager

    found, left = list[str](), set(lacking)
    paths = {
        font.name: FontPath(font.fname, font.index)
        for font in fontManager.ttflist
        if (font.style, font.weight, font.stretch) == REGULAR and not _is_placeholder(font.name)
    }
    while left and paths:
        name = min(sorted(paths), key=lambda name: len(_without(left, paths[name])))
        rest = _without(left, paths.pop(name))
        if rest == left:
            break
        found, left = [*found, name], rest
    return found, left


def _without(characters: set[str], font: str) -> set[str]:
    """Give the visible characters that a font does not have."""
    return {c for c in characters if c.isprintable() and ord(c) not in _code_points(font)}


def _default_font() -> str:
    from matplotlib.font_manager import FontProperties, findfont

    return findfont(FontProperties())


@cache
def _code_points(font: str) -> frozenset[int]:
    from matplotlib.font_manager import get_font

    return frozenset(get_font(font).get_charmap())


def _is_placeholder(family: str) -> bool:
    """Whether a family draws only boxes that say which script a character is of."""
    return family.replace(" ", "").lower().lstrip(".").startswith("lastresort")
