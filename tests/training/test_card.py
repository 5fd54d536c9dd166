"""The card shows what is in adapter.json, and text from data is no markup in it."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llmrec.data.names import clean_text
from llmrec.errors import ModelLoadError
from llmrec.training.card import render_card, write_card
from tests.language.tiny_models import ABOUT as TINY

ABOUT = replace(
    TINY,
    base_model="smollm2-135m",
    labels=("Drama", "Sci-Fi"),
    categories=("Drama", "Sci-Fi"),
    seed=3,
    # Keys of version 0.1 beside one of today.
    config={"rate": 2e-4, "lora": {"rank": 16, "targets": ["q_proj", "v_proj"]}, "minutes": None},
    metrics={"validation": {"log_loss": {"value": 1.97534, "low": 1.9, "high": 2.05}, "n": 500}},
    versions={"torch": "2.13.0", "peft": "0.21.2"},
)


def cells(text: str) -> list[list[str]]:
    """Read the cells of every table row of a card."""
    rows = re.findall(
        r"<tr>(.*?)</tr>", MarkdownIt("commonmark").enable("table").render(text), re.DOTALL
    )
    return [
        [unescape(cell) for cell in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL)]
        for row in rows
    ]


ROWS = cells(render_card(ABOUT))


def test_the_card_shows_what_the_adapter_is() -> None:
    for row in (
        ["base model", "smollm2-135m"],
        ["hash of the base model", "0123456789abcdef"],
        ["log", "ml-100k"],
        ["period", "10 events"],
        ["cutoff", "1998-03-01: nothing at or after it was used"],
        ["prompt version", "forecast-v2"],
        ["categories", "2: Drama, Sci-Fi"],
        ["learning_rate", "0.0002"],
        ["lora.rank", "16"],
        ["lora.targets", "q_proj, v_proj"],
        ["max_minutes", "None"],
    ):
        assert row in ROWS
    assert "With torch 2.13.0, peft 0.21.2." in render_card(ABOUT)
    assert "InterestEngine.from_pretrained(path)" in render_card(ABOUT)
    assert "says nothing about people" in render_card(ABOUT)


def test_a_metric_is_shown_with_its_interval_if_it_has_one() -> None:
    assert ["validation.log_loss", "1.9753", "1.9000 to 2.0500"] in ROWS
    assert ["validation.n", "500", "-"] in ROWS
    assert "Nothing was measured." in render_card(replace(ABOUT, metrics={}))


def test_the_terms_of_an_embedded_log_are_in_the_card_and_for_others_where_to_look() -> None:
    assert "Terms of ml-100k: GroupLens terms" in render_card(ABOUT)
    assert "Terms of my log: those of its source" in render_card(replace(ABOUT, dataset="my log"))


def test_the_card_of_a_merged_model_says_that_it_is_one() -> None:
    text = render_card(replace(ABOUT, merged=True))
    assert "A whole model: smollm2-135m with a LoRA adapter in its weights" in text
    assert ["hash of the merged model", "0123456789abcdef"] in cells(text)


def test_of_many_categories_the_first_are_listed() -> None:
    labels = tuple(f"Category {i}" for i in range(298))
    (row,) = (
        row for row in cells(render_card(replace(ABOUT, labels=labels))) if "categories" in row
    )
    assert row[1].startswith("298: Category 0, ")
    assert row[1].endswith("Category 29 and 268 more")


@settings(max_examples=30)
@given(st.text(max_size=40))
@example("a | b")
@example("a \uff5c b")
@example("line\nbreak | x |\n|---|\n# Title")
@example("<script>alert(1)</script> &lt;")
@example("*a* _b_ `c` [d](e) ![f](g) ~~h~~ \\| \\")
@example("{{ about }} {% raw %}")
def test_text_from_data_is_the_same_text_in_the_table(text: str) -> None:
    shown = render_card(replace(ABOUT, dataset=f"x {text} y", labels=(f"x {text} y", "Drama")))
    expected = clean_text(f"x {text} y", 300)
    rows = cells(shown)
    assert ["log", expected] in rows
    assert ["categories", f"2: {expected}, Drama"] in rows
    assert len(rows) == len(ROWS)
    assert shown.count("\n") == render_card(ABOUT).count("\n")
    assert "<script" not in shown


def test_the_card_is_written_beside_adapter_json(tmp_path: Path) -> None:
    ABOUT.save(tmp_path)
    path = write_card(tmp_path)
    assert path == tmp_path / "README.md"
    assert path.read_text(encoding="utf-8") == render_card(ABOUT)


def test_a_folder_without_adapter_json_gets_no_card(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"adapter\.json does not describe an adapter"):
        write_card(tmp_path)
    assert list(tmp_path.iterdir()) == []
