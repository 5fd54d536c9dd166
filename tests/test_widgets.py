from __future__ import annotations

import html
import importlib
import re
import sys
from dataclasses import replace

import numpy as np
import pytest

from llmrec import Edit, InterestEngine
from llmrec.data.readers import read_table
from llmrec.errors import MissingExtraError
from llmrec.language.model import LanguageModel
from llmrec.ranking.fitting import STRENGTHS
from llmrec.widgets import EditSliders
from tests.forecasters.fakes import FakeModel
from tests.test_engine import frame


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> InterestEngine:
    monkeypatch.setattr(LanguageModel, "load", lambda name, **_: FakeModel())
    table = frame()
    table["title"] = table["title"] + " <b>"
    found = InterestEngine.from_pretrained(data=read_table(table, name="small", period="7D"))
    found.settings = replace(found.settings, strength=1.0, edit_strength=1.0)
    return found


def titles(engine: InterestEngine, *edits: Edit, strength: float | None = None) -> list[str]:
    items = engine.session("u005", edits=edits, strength=strength).recommend(5)
    return [item.title for item in items]


def rows(panel: EditSliders) -> list[str]:
    """Give the titles of the table, top to bottom."""
    found = re.findall(r"<tr><td[^>]*>\d+</td><td.*?</td><td[^>]*>(.*?)</td>", panel.html)
    return [html.unescape(title) for title in found]


def test_the_sliders_start_at_the_list_as_forecast(engine: InterestEngine) -> None:
    panel = EditSliders(engine.session("u005"), 5, n_categories=3)
    assert list(panel.factors) == [
        engine.dataset.catalog.categories[c] for c in engine.forecast("u005").top(3)
    ]
    assert panel.strength.value == engine.settings.strength
    assert panel.edits == ()
    assert "The list as forecast." in panel.html
    assert rows(panel) == titles(engine)


def test_moving_a_slider_ranks_again_and_says_what_changed(engine: InterestEngine) -> None:
    panel = EditSliders(engine.session("u005"), 5)
    last = list(panel.factors)[-1]
    panel.factors[last].value = 4.0
    assert panel.edits == (Edit(last, 4.0),)
    assert rows(panel) == titles(engine, Edit(last, 4.0)) != titles(engine)
    for said in (f"4 times as much {last}.", "new", "Left the list: ", "Verified by ranking again"):
        assert said in panel.html
    panel.strength.value = 0.0
    assert rows(panel) == titles(engine, Edit(last, 4.0), strength=0.0)
    assert f"a strength of 0 instead of {engine.settings.strength:g}." in panel.html


@pytest.mark.parametrize("fitted", STRENGTHS)
def test_the_tilt_s_slider_steps_on_every_strength_that_a_fit_gives(
    engine: InterestEngine, fitted: float
) -> None:
    engine.settings = replace(engine.settings, strength=fitted)
    tilt = EditSliders(engine.session("u005"), 5).strength
    steps = (fitted - tilt.min) / tilt.step
    assert tilt.value == fitted
    assert steps == pytest.approx(round(steps), abs=1e-9)


def test_a_slider_at_zero_mutes(engine: InterestEngine) -> None:
    panel = EditSliders(engine.session("u005"), 25)
    name = next(iter(panel.factors))
    panel.factors[name].value = 0.0
    assert f"No {name}." in panel.html
    assert f">{name}</td>" not in panel.html


def test_a_ticked_lock_holds_a_share_as_the_others_move(engine: InterestEngine) -> None:
    panel = EditSliders(engine.session("u005"), 5)
    first, *_, last = panel.factors
    panel.locks[first].value = True
    assert panel.edits == (Edit(first, 1.0, lock=True),)
    assert f"Keep {first} as it is." in panel.html
    panel.factors[last].value = 4.0
    assert rows(panel) == titles(engine, Edit(first, 1.0, lock=True), Edit(last, 4.0))
    panel.locks[first].value = False
    assert panel.edits == (Edit(last, 4.0),)


def test_when_nothing_can_be_listed_a_sentence_stands_for_the_table(
    engine: InterestEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "llmrec.ranking.ranking.rankable_items", lambda *_: np.zeros(25, dtype=bool)
    )
    panel = EditSliders(engine.session("u005"), 5)
    assert "Nothing is left" in panel.html
    assert "<table>" not in panel.html
    assert "all 0 items" not in panel.html


def test_an_error_is_shown_until_a_slider_moves_back(
    engine: InterestEngine,
) -> None:
    panel = EditSliders(engine.session("u005"), 5)
    for slider in panel.factors.values():
        slider.value = 0.0
    assert "no category is left" in panel.html
    next(iter(panel.factors.values())).value = 1.0
    assert rows(panel)


def test_a_reader_without_a_kernel_sees_the_list_and_no_title_is_markup(
    engine: InterestEngine,
) -> None:
    panel = EditSliders(engine.session("u005"), 5)
    shown = panel._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert shown["text/html"] == panel.html
    assert "&lt;b&gt;" in panel.html


def test_without_ipywidgets_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.delitem(sys.modules, "llmrec.widgets")
    with pytest.raises(MissingExtraError, match=r"llmrec\[notebooks\]"):
        importlib.import_module("llmrec.widgets")
