from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from llmrec.data.periods import History
from llmrec.explain.figures import MISSING_SIGN, fit_fonts, new_figure, to_svg
from llmrec.explain.plots import STEP_NOTE, interest_figure, render_html, top_categories
from tests.explain.people import catalog, make_forecast, person

NAMES = ("🍞 Bread", "משקאות (2001)", "ألبان", "新鮮な野菜と果物の売り場とその他の品")
AHEAD = make_forecast(0.45, 0.15, 0.1, 0.3)


@pytest.fixture(autouse=True)
def _bundled_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the fonts that come with matplotlib alone, and let no warning pass."""
    fonts = font_manager.fontManager.ttflist
    bundled = [font for font in fonts if "mpl-data" in font.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", bundled)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def ann() -> History:
    return person(["abcd", "aabcd"], catalog(NAMES))


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def labelled(text: str) -> tuple[Figure, Text]:
    figure = new_figure()
    return figure, figure.text(0, 0, text, weight="bold", parse_math=False)


def test_characters_that_no_font_has_become_a_sign_and_are_counted() -> None:
    figure, label = labelled("🍞🍞 Bread 新")
    assert fit_fonts(figure) == 2
    assert label.get_text() == f"{MISSING_SIGN * 2} Bread {MISSING_SIGN}"
    figure.canvas.draw()


@pytest.mark.parametrize("text", ["משקאות", "ألبان", "Ωμέγα ☕ $5 ½"])
def test_what_the_default_font_has_is_left_alone(text: str) -> None:
    figure, label = labelled(text)
    before = label.get_fontfamily(), label.get_fontweight()
    assert fit_fonts(figure) == 0
    assert (label.get_text(), label.get_fontfamily(), label.get_fontweight()) == (text, *before)
    figure.canvas.draw()


def test_another_installed_font_draws_what_the_default_one_lacks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    figure, label = labelled("の")  # STIXGeneral has it
    assert fit_fonts(figure) == 0
    assert label.get_text() == "の"
    assert "STIXGeneral" in label.get_fontfamily()
    figure.canvas.draw()
    assert caplog.messages == []


def test_a_picture_of_names_in_all_scripts_says_how_many_characters_are_missing() -> None:
    drawn = interest_figure(ann(), AHEAD)
    drawn.canvas.draw()
    shown = texts_of(drawn)
    assert f"{MISSING_SIGN} Bread" in shown
    assert "משקאות (2001)" in shown
    assert (
        f"{MISSING_SIGN}: 12 characters that no font here has; an .html chart shows them." in shown
    )


def test_a_picture_of_plain_names_has_no_note_on_fonts() -> None:
    assert not any(
        MISSING_SIGN in text for text in texts_of(interest_figure(person(["ab"]), AHEAD))
    )


def test_a_page_holds_the_names_themselves_whatever_fonts_there_are() -> None:
    page = render_html(ann(), AHEAD, [])
    assert all(name in page for name in NAMES[:3])
    assert MISSING_SIGN not in page


def test_an_svg_of_names_without_fonts_is_made_without_a_warning() -> None:
    figure, _ = labelled("🍞 <新鮮>")
    assert "🍞 &lt;新鮮&gt;" in to_svg(figure)


def test_the_chart_says_what_its_marks_are_and_what_a_steep_step_means() -> None:
    drawn = interest_figure(person(["aab", "b"]), AHEAD)
    (legend,) = drawn.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert said == [
        "share in a period of 7 days",
        "pooled with the periods beside it",
        "step to the forecast",
        "forecast, 80% interval",
    ]
    assert STEP_NOTE in texts_of(drawn)
    assert STEP_NOTE in render_html(person(["aab", "b"]), AHEAD, [])


@pytest.mark.parametrize(
    "names", [("Frozen vegetables and side dishes", "新" * 60, "c", "d"), ("a", "b", "c", "d")]
)
def test_no_text_leaves_the_picture_and_no_caption_touches_another(names: tuple[str, ...]) -> None:
    drawn = interest_figure(person(["abcd"] * 30, catalog(names)), AHEAD)
    drawn.canvas.draw()
    whole, (legend,) = drawn.bbox, drawn.legends
    heading, note = drawn.texts[:2]
    boxes = [part.get_window_extent() for part in (heading, legend, note, drawn.axes[0].patch)]
    for above, below in pairwise(boxes):
        assert below.y1 <= above.y0
    assert max(box.x1 for box in boxes) <= whole.x1
    assert max(text.get_window_extent().x1 for text in drawn.axes[0].texts) <= whole.x1


def test_of_many_categories_taken_as_often_the_most_expected_are_drawn() -> None:
    past, expected = np.full(20, 0.05), np.full(20, 0.002)
    expected[[17, 4]] = 0.03, 0.01
    assert top_categories(past, expected, 3).tolist() == [17, 4, 0]
