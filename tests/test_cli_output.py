"""No control or bidirectional character of a log reaches a terminal, JSON or page raw."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.text import Text
from typer.testing import CliRunner

from llmrec import cli
from llmrec.cli.render import make_console, outcome_text, render_list
from llmrec.language.model import LanguageModel
from tests.forecasters.fakes import FakeModel
from tests.test_engine import frame

RUN = CliRunner()
USER = "u001\u202e\x9b"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(LanguageModel, "load", lambda name="", **_: FakeModel())
    events = frame(n_users=60, n_days=200)
    path = tmp_path / "log.csv"
    events.assign(user_id=events["user_id"].replace("u001", USER)).to_csv(path, index=False)
    return str(path)


def prints(text: str) -> bool:
    return text.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "arguments",
    [
        ["forecast", "--user", USER],
        ["recommend", "--user", USER, "-k", "3"],
        ["recommend", "--user", USER, "-k", "3", "--mute", "war"],
        ["explain", USER, "i004"],
    ],
)
def test_what_a_command_prints_about_a_person_is_printable(
    arguments: list[str], table: str
) -> None:
    shown = RUN.invoke(cli.app, [*arguments, "--data", table])
    assert shown.exit_code == 0, shown.output
    assert prints(shown.output)
    as_json = RUN.invoke(cli.app, [*arguments, "--data", table, "--json"])
    assert prints(as_json.stdout)
    assert json.loads(as_json.stdout)["user_id"] == USER


def test_a_page_about_a_person_is_printable(table: str, tmp_path: Path) -> None:
    page = tmp_path / "me.html"
    arguments = ["forecast", "--user", USER, "--data", table, "--chart", str(page)]
    assert RUN.invoke(cli.app, arguments).exit_code == 0
    assert prints(page.read_text(encoding="utf-8"))


def test_a_console_keeps_its_own_colours_and_replaces_what_texts_bring() -> None:
    out = io.StringIO()
    console = make_console(file=out, force_terminal=True, color_system="standard")
    console.print(Text("red \x1b[2J\u202e", style="red"))
    assert out.getvalue() == "\x1b[31mred �[2J�\x1b[0m\n"


def test_an_empty_list_and_an_outcome_are_told_in_the_verb_of_the_log() -> None:
    out = io.StringIO()
    make_console(file=out).print(render_list([], verb="watched"))
    assert "all that could be listed is muted or was watched." in out.getvalue()
    happened = {"events": 3, "top": {"War": 1.0}, "hits": ["Title 4"], "listed": 10}
    assert outcome_text(happened, "watched").endswith("Watched of the 10 listed: 1: Title 4.")
    assert outcome_text(happened).endswith("Taken of the 10 listed: 1: Title 4.")
