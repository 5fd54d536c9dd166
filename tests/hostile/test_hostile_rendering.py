"""Whatever people, items and categories are called: no output has markup or control of theirs."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from matplotlib.text import Text

from llmrec import cli
from llmrec.cli.render import make_console, render_effect, render_explanation, show_person
from llmrec.data.readers import read_table
from llmrec.engine import InterestEngine
from llmrec.explain.explanation_page import causes_figure, render_explanation_html
from llmrec.explain.plots import interest_figure, render_html, save_png
from llmrec.explain.printable import to_json
from llmrec.ranking.edit_parser import parse_edits
from llmrec.ranking.edits import Edit
from llmrec.training.card import render_card
from tests.hostile.conftest import Count
from tests.hostile.hostile_texts import hostile_texts
from tests.language.tiny_models import ABOUT
from tests.worlds import START

SOME = pytest.param(12, id="some")
ALL = pytest.param(300, id="all", marks=pytest.mark.hostile)
N_EVENTS, N_DAYS = 9, 21  # of each person
COLOUR = re.compile(r"\x1b\[[\d;]*m")


@cache
def world(texts: tuple[str, ...]) -> InterestEngine:
    """An engine in whose log each text is a person, an item's title and that item's category."""
    rng, rows = np.random.default_rng(0), []
    for user, own in enumerate(texts):
        for item in (user + rng.integers(0, 4, size=N_EVENTS)) % len(texts):
            time = START + np.timedelta64(int(rng.integers(N_DAYS * 86_400)), "s")
            name = texts[int(item)]
            # Of one name are several texts: a number keeps people and categories apart.
            person = f"{own} {user}".encode("utf-8", "replace").decode()  # half a letter is no id
            row = (person, f"i{item:03d}", time, name, [f"{name} {item}"])
            rows.append(row)
    columns = ["user_id", "item_id", "timestamp", "title", "categories"]
    made = read_table(pd.DataFrame(rows, columns=columns, dtype=object), period="7D", name=texts[0])
    return InterestEngine.from_pretrained(data=made, model=None)


class Structure(HTMLParser):
    """What of a page is markup: tags with their attributes, where links lead, and its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.markup: set[tuple[str, str]] = set()
        self.links: set[str] = set()
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.markup |= {(tag, name) for name, _ in attrs} | {(tag, "")}
        self.links |= {v or "" for name, v in attrs if name in ("href", "src", "action", "hx-get")}
        self._in_script = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)

    def handle_comment(self, data: str) -> None:
        self.markup.add(("comment", data[:40]))

    def handle_decl(self, decl: str) -> None:
        self.markup.add(("declaration", decl))

    def unknown_decl(self, data: str) -> None:
        self.markup.add(("declaration", data[:40]))


def harmless(count: int) -> tuple[str, ...]:
    return tuple(f"Name {number}" for number in range(count))


@dataclass(frozen=True)
class Outputs:
    """All that is shown of a person, by kind of output."""

    engine: InterestEngine
    user: str

    def terminal(self) -> Iterator[str]:
        """Give what commands print, colours included."""
        session, dataset = self.engine.session(self.user), self.engine.dataset
        listed, forecast = session.recommend(3), session.forecast
        category = dataset.catalog.categories[forecast.top(1)[0]]
        happened = {"events": 3, "top": {category: 1.0}, "hits": [listed[0].title], "listed": 3}
        parsed = parse_edits(f"more {category}, no xyzzy", dataset.catalog, session.history.cutoff)
        out = io.StringIO()
        console = make_console(file=out, width=400, force_terminal=True, color_system="standard")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("llmrec.cli.render.console", console)
            show_person(dataset, session.history, forecast, listed, happened)
        console.print(render_explanation(session.explain(listed[0].item_id)))
        edits = [Edit(category, 2.0)]
        understood = replace(parsed, edits=tuple(edits))
        console.print(render_effect(understood, session.edit(*edits).effect()))
        yield out.getvalue()

    def as_json(self) -> Iterator[str]:
        session = self.engine.session(self.user)
        yield to_json([one.explanation.to_dict() for one in session.recommend(3)])

    def pages(self) -> Iterator[str]:
        """Give HTML: of charts, of an explanation, of sliders in a notebook."""
        session = self.engine.session(self.user)
        listed = session.recommend(3)
        yield render_html(session.history, session.forecast, [one.explanation for one in listed])
        yield render_explanation_html(session.explain(listed[0].item_id))
        from llmrec.widgets import EditSliders

        sliders = EditSliders(session, 3)
        yield sliders.html
        yield "".join(box.value for box in sliders.widget.children if hasattr(box, "value"))


def shown_plainly(output: str) -> bool:
    """Whether an output holds no character that acts and does not show."""
    return output.replace("\n", "").isprintable()


def people(engine: InterestEngine) -> list[str]:
    return [str(user) for user in engine.dataset.log.user_ids]


@pytest.fixture(scope="module")
def plain() -> list[Outputs]:
    """What is shown where everything has a harmless name."""
    engine = world(harmless(5))
    return [Outputs(engine, user) for user in people(engine)]


def outputs_of(n: int) -> list[Outputs]:
    engine = world(tuple(hostile_texts(n).values()))
    return [Outputs(engine, user) for user in people(engine)]


@pytest.mark.parametrize("n", [SOME, ALL])
def test_a_terminal_shows_hostile_texts_as_letters(
    n: int, plain: list[Outputs], count: Count
) -> None:
    own = {code for one in plain for text in one.terminal() for code in COLOUR.findall(text)}
    broken = []
    for one in outputs_of(n):
        for text in one.terminal():
            if not shown_plainly(COLOUR.sub("", text)) or set(COLOUR.findall(text)) - own:
                broken.append(one.user)
        for text in one.as_json():
            if not shown_plainly(text) or not json.loads(text):
                broken.append(one.user)
    count("hostile texts are letters on a terminal and in JSON", n, len(set(broken)))
    assert broken == []


@pytest.mark.parametrize("n", [SOME, ALL])
def test_a_page_has_no_markup_link_or_script_of_a_hostile_text(
    n: int, plain: list[Outputs], count: Count
) -> None:
    own = [Structure(page) for one in plain for page in one.pages()]
    markup = {part for page in own for part in page.markup}
    scripts = {script for page in own for script in page.scripts}
    broken = []
    for one in outputs_of(n):
        for page in one.pages():
            found = Structure(page)
            links = {link for link in found.links if not link.startswith(("/", "#"))}
            if found.markup - markup or set(found.scripts) - scripts or links:
                broken.append((one.user, found.markup - markup, links))
            if not shown_plainly(page):
                broken.append((one.user, set(), set()))
    count("hostile texts are no markup in a page", n, len({user for user, *_ in broken}))
    assert broken == []


@pytest.mark.parametrize("n", [SOME, ALL])
def test_no_figure_typesets_a_hostile_text(n: int, tmp_path: Path, count: Count) -> None:
    broken = []
    for place, one in enumerate(outputs_of(n)):
        session = one.engine.session(one.user)
        listed = session.recommend(1)[0]
        drawn = interest_figure(session.history, session.forecast)
        if place % 10 == 0:  # what fonts lack is told in every figure, and drawing takes long
            save_png(session.history, session.forecast, tmp_path / "me.png")
        for figure in (drawn, causes_figure(session.explain(listed.item_id))):
            texts = [text for text in figure.findobj(Text) if text.get_text()]
            if any(text.get_parse_math() and "$" in text.get_text() for text in texts):
                broken.append(one.user)
            if any(not shown_plainly(text.get_text()) for text in texts):
                broken.append(one.user)
    count("hostile texts are not typeset in figures", n, len(set(broken)))
    assert broken == []


@pytest.mark.parametrize("n", [SOME, ALL])
def test_sliders_of_a_notebook_typeset_no_hostile_text(n: int, count: Count) -> None:
    from llmrec.widgets import EditSliders

    broken = []
    for one in outputs_of(n):
        sliders = EditSliders(one.engine.session(one.user), 3)
        labels = [slider.description for slider in sliders.factors.values()]
        if any("$" in label or "\\" in label for label in labels):
            broken.append(one.user)
        if any(slider.description_allow_html for slider in sliders.factors.values()):
            broken.append(one.user)
        if "mathjax_ignore" not in sliders.html:
            broken.append(one.user)
    count("hostile texts are not typeset in a notebook", n, len(set(broken)))
    assert broken == []


def tokens(card: str) -> list[str]:
    """List what Markdown finds in a card besides texts, inline too."""
    found = MarkdownIt("gfm-like", {"linkify": False}).parse(card)
    types = [one.type for token in found for one in (token, *(token.children or ()))]
    return [one for one in types if one != "text"]  # of a text without letters there is none


@pytest.mark.parametrize("n", [SOME, ALL])
def test_a_model_card_has_no_markup_of_a_hostile_text(n: int, count: Count) -> None:
    broken = []
    for name, text in hostile_texts(n).items():
        cards = [
            render_card(
                replace(
                    ABOUT,
                    base_model=one,
                    dataset=one,
                    labels=(one, "Drama"),
                    categories=(one, "Drama"),
                    period=one,
                    config={"data": one},
                    versions={"torch": one},
                )
            )
            for one in ("harmless", text[:100_000])
        ]
        if tokens(cards[0]) != tokens(cards[1]) or not shown_plainly(cards[1]):
            broken.append(name)
    count("hostile texts are no markup in a model card", n, len(broken))
    assert broken == []


@pytest.mark.parametrize("n", [SOME, ALL])
def test_an_error_about_a_hostile_name_is_one_printable_line(
    n: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], count: Count
) -> None:
    engine, broken = world(harmless(5)), []
    for name, text in hostile_texts(n).items():
        for ask in (
            lambda text=text: engine.session(text),
            lambda text=text: engine.session("Name 1 1").explain(text),
            lambda text=text: engine.session("Name 1 1", edits=[Edit(text, 2.0)]),
            lambda text=text: engine.session("Name 1 1", edits=text),
        ):
            monkeypatch.setattr(cli, "app", ask)
            try:
                cli.main()
            except SystemExit:
                shown = capsys.readouterr().err
                if not shown_plainly(shown) or len(shown) > 3_000:
                    broken.append((name, shown[:200]))
    count("an error about a hostile name is printable", n, len(broken))
    assert broken == []
