from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import betabinom

from llmrec.data.catalog import Catalog
from llmrec.data.periods import History
from llmrec.errors import MissingExtraError
from llmrec.explain.describe import describe_from_claims
from llmrec.explain.item import ItemExplanation, explain_item
from llmrec.explain.plots import (
    LABEL_GAP,
    MAX_POINTS,
    ShareSeries,
    interest_figure,
    render_html,
    render_terminal,
    save_html,
    save_png,
)
from llmrec.forecast import Forecast
from llmrec.ranking.blend import Blend
from llmrec.ranking.ranking import rank
from tests.explain.people import BREAD, FixedScorer, catalog, make_forecast, person

WEEKS = ["bbbbcca", "bbbbcca", "", "bbbaaa", "bbaaaa"]
AHEAD = make_forecast(0.45, 0.15, 0.1, 0.3)
HOSTILE = (
    "[red]Sale[/red] [/]",
    "<script>alert(1)</script>",
    "</svg>&amp;\"'",
    "$\\frac{ $5 $",
)


def printed(history: History, forecast: Forecast, width: int = 80, color: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=color)
    console.print(render_terminal(history, forecast))
    return out.getvalue()


def hostile_person() -> tuple[History, Forecast, list[ItemExplanation]]:
    items = catalog(HOSTILE, titles="{0} [bold]{{{{ 7 * 7 }}}}[/bold] {1}")
    ann = person(["aabbccdd", "aabbccdd"], items, user_id="[red]<b>ann</b>")
    ahead = replace(make_forecast(1, 2, 3, 4), description="<i>words</i>")
    ranked = rank([ahead], [ann], Blend((FixedScorer("<u>taste", 1.0),), (1.0,)), k=3)[0]
    return ann, ahead, [explain_item(ranked, position, ann, ahead) for position in range(3)]


class PageParser(HTMLParser):
    """Collects the tags that a browser would open, and the text that it would show."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.shown: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.opened.append(tag)

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def test_a_row_on_the_terminal_has_name_shares_and_direction() -> None:
    apples, dips, bread, cola = printed(person(WEEKS), AHEAD).splitlines()[2:]
    assert apples.split()[:-2] == ["Apples", "▃▃▃▃▃▃▃▃", "▇▇▇▇████", "35%", "45%", "↑"]
    assert dips.split()[:-2] == ["Dips", "▁" * 8, "▁" * 8, "0%", "30%", "↑"]
    assert bread.split()[-5:-2] == ["50%", "15%", "↓"]
    assert cola.split()[-5:-2] == ["15%", "10%", "↓"]


def test_a_row_ends_with_whole_numbers_and_their_own_probability() -> None:
    header, apples, *_ = printed(person(WEEKS), AHEAD).splitlines()[1:]
    n = int(re.search(r"of next (\d+)", header)[1])  # type: ignore[index]
    low, high, percent = map(int, re.search(r"(\d)-(\d) +\((\d+)%\)$", apples.rstrip()).groups())  # type: ignore[union-attr]
    a, b = 50 * 0.45, 50 * 0.55
    inside = betabinom.cdf(high, n, a, b) - betabinom.cdf(low - 1, n, a, b)
    assert percent == round(100 * inside)
    assert 0.6 < inside <= 1


def test_the_heading_on_the_terminal_has_user_and_dates() -> None:
    first, second = printed(person(WEEKS), AHEAD).splitlines()[:2]
    assert first == "User ann · 26 events before 5 Feb 2020 · forecast of the next 7 days"
    assert "1 Jan 2020 to 5 Feb 2020" in second


@pytest.mark.parametrize("width", [80, 100])
def test_rows_fit_the_width_of_the_terminal_with_long_and_wide_names(width: int) -> None:
    items = catalog(("x" * 60, "新鮮" * 20, "Cola", "Dips"))
    lines = printed(person(WEEKS * 8, items), AHEAD, width).splitlines()
    assert len(lines) == 2 + 4
    assert all(line.rstrip().endswith("%)") for line in lines[2:])


def test_rich_markup_in_names_and_ids_is_shown_as_text() -> None:
    ann, ahead, _ = hostile_person()
    plain, coloured = printed(ann, ahead), printed(ann, ahead, color=True)
    assert "[red]Sale[/red] [/]" in plain
    assert "[red]<b>ann</b>" in plain
    assert "\x1b[31m" not in coloured


def test_control_characters_of_a_user_id_never_reach_the_terminal() -> None:
    ann = person(WEEKS, user_id="ann\x1b[2J\x07\u202e")
    assert "\x1b" not in printed(ann, AHEAD)
    assert "\u202e" not in printed(ann, AHEAD)


def test_many_periods_are_merged_so_that_the_newest_groups_are_whole() -> None:
    weeks = ["", "a"] + ["b"] * 49
    series = ShareSeries.of(person(weeks))
    assert len(series.starts) <= MAX_POINTS
    assert str(series.length) == "21 days"
    ends = np.diff(series.starts) / np.timedelta64(7, "D")
    assert (ends[1:] == 3).all()
    assert series.shares[0, 0] == 1 / 2  # 50 weeks since the first event: the oldest group has 2


def test_merging_loses_no_event() -> None:
    ann = person(["ab", "", "b"] * 17)
    sizes = np.diff(ann.offsets)
    series = ShareSeries.of(ann)
    assert np.isfinite(series.shares).all()
    assert sizes.sum() == ann.n_events
    assert np.allclose(series.shares.sum(axis=1), 1)


def test_an_empty_period_breaks_the_dots_but_not_the_line() -> None:
    series = ShareSeries.of(person(WEEKS))
    assert np.isnan(series.shares[2]).all()
    assert series.smooth[2, 1] == (4 + 3) / (7 + 6)


def empty_history() -> History:
    zoe = person(["a"])
    start = zoe.bounds[0]
    return History(
        zoe.log, zoe.catalog, 0, np.zeros(2, np.int64), zoe.bounds, start, zoe.period_length
    )


def test_a_history_without_events_is_drawn_as_a_forecast_alone() -> None:
    assert "no period" in printed(empty_history(), AHEAD)
    assert "<svg" in render_html(empty_history(), AHEAD, [])


def test_labels_stand_at_the_right_in_order_and_do_not_overlap() -> None:
    drawn = interest_figure(person(WEEKS), make_forecast(0.25, 0.25, 0.25, 0.25))
    heights = [text.get_position()[1] for text in drawn.axes[0].texts if text.get_text() == "25%"]
    assert len(heights) == 4
    assert (np.diff(heights) <= -LABEL_GAP + 1e-9).all()
    assert 0 <= heights[-1] < heights[0] <= 1


def test_labels_of_many_small_shares_stay_inside_the_axes() -> None:
    drawn = interest_figure(person(["a"]), make_forecast(0.97, 0.01, 0.01, 0.01))
    assert all(0 <= text.get_position()[1] <= 1 for text in drawn.axes[0].texts)


def test_the_figure_shows_the_80_percent_intervals_of_the_forecast() -> None:
    drawn = interest_figure(person(WEEKS), AHEAD, top=1)
    (bars,) = drawn.axes[0].collections
    segment = bars.get_segments()[0]  # type: ignore[attr-defined]
    n_events = np.mean([len(week) for week in WEEKS if week])
    assert segment[:, 1].tolist() == AHEAD.intervals(0.8, float(n_events))[BREAD].tolist()


@pytest.mark.parametrize("n", [2, 5, 40])
def test_intervals_of_few_events_have_the_variance_of_their_shares(n: int) -> None:
    forecast = make_forecast(0.3, 0.7, concentration=20.0)
    shares = np.random.default_rng(0).beta(6.0, 14.0, 200_000)
    seen = np.random.default_rng(1).binomial(n, shares) / n
    quantiles = np.linspace(0.002, 0.998, 499)
    inside = np.concatenate([forecast.intervals(1 - 2 * q, n)[0] for q in quantiles[:249]])
    assert inside.var() == pytest.approx(seen.var(), rel=0.06)
    assert np.ptp(forecast.intervals(0.8)[0]) < np.ptp(forecast.intervals(0.8, n)[0])


@pytest.mark.parametrize("top", [0, 8])
def test_more_lines_than_colours_are_refused(top: int) -> None:
    with pytest.raises(ValueError, match=r"top must lie in 1\.\.7"):
        interest_figure(person(WEEKS), AHEAD, top=top)


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'llmrec\[charts\]'"):
        interest_figure(person(WEEKS), AHEAD)


def test_drawing_leaves_the_callers_matplotlib_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    render_html(person(WEEKS), AHEAD, [])
    assert dict(matplotlib.rcParams) == before


def test_files_are_written_whole_and_the_same_each_time(tmp_path: Path) -> None:
    ann, ahead, explanations = hostile_person()
    for name in ("first", "second"):
        save_png(ann, ahead, tmp_path / f"{name}.png")
        save_html(ann, ahead, explanations, tmp_path / f"{name}.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "first.html", "first.png", "second.html", "second.png",
    ]  # fmt: skip
    assert (tmp_path / "first.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for kind in ("png", "html"):
        first, second = (tmp_path / f"{name}.{kind}" for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()


def test_the_page_shows_hostile_text_as_text() -> None:
    ann, ahead, explanations = hostile_person()
    page = PageParser(render_html(ann, ahead, explanations))
    assert not {"script", "b", "i", "u"} & set(page.opened)
    shown = " ".join(page.shown)
    for text in ("<script>alert(1)</script>", "{{ 7 * 7 }}", "<i>words</i>", "</svg>&\"'"):
        assert text in shown


def test_the_page_needs_no_other_file() -> None:
    page = render_html(person(WEEKS), AHEAD, [])
    assert "<link" not in page
    assert "src=" not in page
    assert "url(http" not in page


def test_the_page_holds_the_sentences_the_list_and_the_source() -> None:
    ann, _, explanations = hostile_person()
    ahead = make_forecast(1, 2, 3, 4)
    ahead = describe_from_claims(ann, ahead, {("rising", 0): "should pick up"})
    shown = " ".join(PageParser(render_html(ann, ahead, explanations)).shown)
    assert ahead.statements
    assert ahead.description in shown
    assert all(item.text in shown for item in explanations)
    assert "Forecast: by hand, counting" in shown


def test_every_catalog_can_be_drawn(tmp_path: Path) -> None:
    for categories in (("Only",), tuple(f"c{number}" for number in range(40))):
        items: Catalog = catalog(categories)
        weights = np.linspace(1, 2, len(categories))
        assert printed(person(["a"], items), make_forecast(*weights))
        save_png(person(["a"], items), make_forecast(*weights), tmp_path / "picture.png")
