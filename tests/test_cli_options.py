"""Options that commands share: how a log is read, numbers in bounds, times, and `check`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from llmrec import cli
from llmrec.cli.log_options import PANEL, read_time
from llmrec.data import options
from llmrec.data.dataset import Dataset
from llmrec.data.options import READING_FIELDS, ReadingOptions
from llmrec.data.readers import load_dataset
from llmrec.data.report import Finding
from llmrec.errors import DataError
from llmrec.language.model import LanguageModel
from tests.forecasters.fakes import FakeModel
from tests.test_engine import frame

RUN = CliRunner()
TOP: dict[str, Any] = getattr(get_command(cli.app), "commands")  # noqa: B009  (a Group's)
AUDITS = {f"audit {name}": command for name, command in TOP["audit"].commands.items()}
COMMANDS = {name: command for name, command in TOP.items() if name != "audit"} | AUDITS
# The arguments without which a command does not start, but for the log.
ARGUMENTS = {
    "forecast": ["--user", "u001", "--data"],
    "recommend": ["--user", "u001", "--data"],
    "explain": ["u001", "i004", "--data"],
    "evaluate": ["--forecasters", "LastPeriod", "--data"],
    "audit order": ["--forecasters", "LastPeriod", "--data"],
    "audit names": ["--forecasters", "LastPeriod", "--data"],
    "audit titles": ["--forecasters", "LastPeriod", "--data"],
    "audit drift": ["--data"],
    "audit privacy": ["--engines", "4", "--canaries", "0", "--data"],
    "audit length": ["--forecasters", "LastPeriod", "--data"],
    "track-record": ["{stored}", "--data"],
    "receipts": ["{stored}", "--data"],
    "check": [],
    "fit": ["--effort", "quick", "--model", "none", "--out", "{stored}-engine", "--data"],
}


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanguageModel, "load", lambda name="", **_: FakeModel())


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "small.csv"
    frame(n_users=100, n_days=200).to_csv(path, index=False)
    return str(path)


@pytest.fixture
def change_dataset(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let every log that is loaded have other attributes."""

    def change(**attributes: Any) -> None:
        def load(name: str, **reading: Any) -> Dataset:
            return replace(load_dataset(name), **attributes)

        monkeypatch.setattr(options, "load_dataset", load)

    return change


def command_line(command: str, data: str, *flags: str) -> list[str]:
    folder = str(Path(data).parent / "stored")
    arguments = [argument.format(stored=folder) for argument in ARGUMENTS[command]]
    return [*command.split(), *arguments, data, *flags]


def store_forecast(table: str) -> None:
    arguments = command_line("forecast", table, "--store", str(Path(table).parent / "stored"))
    assert RUN.invoke(cli.app, arguments).exit_code == 0


def test_the_commands_that_take_a_log_are_those_tested_here() -> None:
    takers = {name for name, it in COMMANDS.items() if "data" in {p.name for p in it.params}}
    # They need an engine or a new folder, or change the log: they have tests of their own.
    others = {"batch", "cost", "serve", "redact", "forget"}
    assert takers == ARGUMENTS.keys() | others


@pytest.mark.parametrize("command", ARGUMENTS)
def test_every_command_that_takes_a_log_takes_the_options_of_how_it_is_read(command: str) -> None:
    panel = [p for p in COMMANDS[command].params if getattr(p, "rich_help_panel", None) == PANEL]
    assert [p.opts for p in panel] == [[f"--{n.replace('_', '-')}"] for n in READING_FIELDS]
    assert all(p.default is READING_FIELDS[p.name].default for p in panel)
    settings = {"COLUMNS": "200", "NO_COLOR": "1"}
    shown = RUN.invoke(cli.app, [*command.split(), "--help"], env=settings).output
    _, rest = shown.split(PANEL)
    assert [option for p in panel for option in p.opts if f" {option} " not in rest] == []


@pytest.mark.parametrize("command", ARGUMENTS)
def test_options_of_a_command_reach_the_reading_of_the_log(
    command: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[ReadingOptions] = []

    def load(name: str, **reading: Any) -> Dataset:
        taken.append(ReadingOptions(**reading))
        return load_dataset(name)

    store_forecast(table)
    monkeypatch.setattr(options, "load_dataset", load)
    flags = ["--period", "5 events", "--repeat", "exclude", "--columns", "user=who,time=at"]
    flags += ["--separator", "|", "--dates", "%d/%m/%Y", "--noun", "books", "--person", "reader"]
    flags += ["--verb", "read", "--keep-bots", "--keep-outliers", "--clusters", "9"]
    for line in (command_line(command, table), command_line(command, table, *flags)):
        shown = RUN.invoke(cli.app, line)
        assert shown.exit_code == 0, shown.output
    assert taken == [
        ReadingOptions(),
        ReadingOptions(
            period="5 events",
            repeat="exclude",
            columns={"user_id": "who", "timestamp": "at"},
            separator="|",
            dates="%d/%m/%Y",
            noun="books",
            person="reader",
            verb="read",
            keep_bots=True,
            keep_outliers=True,
            clusters=9,
        ),
    ]


@pytest.mark.parametrize(
    ("option", "value", "way_out"),
    [
        ("--period", "0", "28D"),
        ("--period", "0D", "28D"),
        ("--period", "-7D", "28D"),
        ("--period", "soon", "28D"),
        ("--repeat", "maybe", "allow or exclude"),
        ("--columns", "usr=who", "user, item, time, title, categories, rating"),
        ("--columns", "user", "user=NAME"),
        ("--dates", "sometimes", "day-first"),
        ("--dates", "%q", "%d/%m/%Y"),
        ("--separator", "", "such as"),
        ("--noun", "", "films"),
        ("--calibrate", "2", "1"),
        ("--calibrate", "-0.1", "0"),
        ("--calibrate", "nan", ""),
        ("--strength", "-1", "0"),
        ("--strength", "nan", ""),
        ("--strength", "100.5", "100"),
        ("--strength", "inf", "100"),
    ],
)
def test_a_wrong_value_is_refused_in_a_few_lines_before_anything_is_read(
    option: str, value: str, way_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "load_dataset", lambda *_, **__: pytest.fail("the log was read"))
    line = command_line("recommend", "/nowhere/small.csv", option, value)
    shown = RUN.invoke(cli.app, line, env={"COLUMNS": "80", "NO_COLOR": "1"})
    assert shown.exit_code == 2
    assert shown.stdout == ""
    assert "Usage: " in shown.stderr
    assert f"'{option}'" in shown.stderr
    assert way_out in " ".join(shown.stderr.replace("│", " ").split())
    assert len(shown.stderr.splitlines()) <= 8


DROPPED = Finding("more events in a day than a person can have", 1_500, "user 'bot'")
DECIDED = Finding("days come before months", 4_000, "31/01/2024", "read")


@pytest.mark.parametrize("command", [name for name in ARGUMENTS if name != "check"])
def test_what_reading_dropped_is_said_on_stderr_in_a_line(
    command: str, table: str, change_dataset: Callable[..., None]
) -> None:
    store_forecast(table)
    change_dataset(reading=(DECIDED, DROPPED))
    shown = RUN.invoke(cli.app, command_line(command, table, "--json"))
    json.loads(shown.stdout)
    (line,) = [line for line in shown.stderr.splitlines() if "llmrec check" in line]
    assert DROPPED.rule in line
    assert "1,500" in line
    assert f"`llmrec check {table}` shows more." in line


def test_the_command_that_shows_more_works_as_it_is_written(
    table: str, tmp_path: Path, change_dataset: Callable[..., None]
) -> None:
    change_dataset(reading=(DECIDED, DROPPED))
    spaced = Path(table).rename(tmp_path / "my log.csv")
    flags = ["--dates", "s"]
    said = RUN.invoke(cli.app, command_line("forecast", str(spaced), *flags)).stderr
    command = said.partition("`llmrec ")[2].partition("`")[0]
    assert said.rstrip().endswith("` with the same options shows more.")
    shown = RUN.invoke(cli.app, [*shlex.split(command), *flags])
    assert DROPPED.rule in shown.stdout


def test_nothing_is_said_of_a_log_that_left_nothing_to_decide(table: str) -> None:
    assert RUN.invoke(cli.app, command_line("forecast", table)).stderr == ""


def test_how_a_log_was_read_is_said_on_stderr_too(
    table: str, change_dataset: Callable[..., None]
) -> None:
    change_dataset(reading=(DECIDED,))
    assert DECIDED.rule in RUN.invoke(cli.app, command_line("forecast", table)).stderr


def test_check_says_what_was_read_in_words_and_as_json(
    table: str, change_dataset: Callable[..., None]
) -> None:
    change_dataset(reading=(DECIDED, DROPPED))
    shown = RUN.invoke(cli.app, command_line("check", table))
    assert shown.exit_code == 0, shown.output
    assert shown.stderr == ""
    for words in ("100 people", DECIDED.rule, DROPPED.rule, "1,500"):
        assert words in " ".join(shown.stdout.split())
    found = json.loads(RUN.invoke(cli.app, command_line("check", table, "--json")).stdout)
    dataset = load_dataset(table)
    assert (found["users"], found["items"]) == (100, 25)
    assert found["interactions"] == len(dataset.log)
    assert found["categories"] == sorted(dataset.catalog.categories)
    assert found["first"] == str(dataset.log.timestamp.min())
    assert found["last"] == str(dataset.log.timestamp.max())
    rules = [(entry["rule"], entry["rows"], entry["effect"]) for entry in found["report"]]
    assert rules == [
        (DECIDED.rule, DECIDED.rows, "read"),
        (DROPPED.rule, DROPPED.rows, "dropped"),
    ]


def test_check_names_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    shown = RUN.invoke(cli.app, ["check", str(tmp_path / "none.csv")])
    assert isinstance(shown.exception, DataError)
    assert "none.csv" in str(shown.exception)


@pytest.mark.parametrize("command", ["check", "evaluate", "audit names"])
def test_what_happened_at_or_after_a_cutoff_is_left_out(
    command: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cutoffs: list[str] = []
    known_before = Dataset.known_before

    def record(self: Dataset, cutoff: Any) -> Dataset:
        cutoffs.append(str(cutoff))
        return known_before(self, cutoff)

    monkeypatch.setattr(Dataset, "known_before", record)
    line = command_line(command, table, "--json", "--cutoff", "2020-07-16")
    shown = RUN.invoke(cli.app, line)
    assert shown.exit_code == 0, shown.output
    assert cutoffs == ["2020-07-16T00:00:00.000"]
    if command == "check":
        assert "2020-07-15" <= json.loads(shown.stdout)["last"] < "2020-07-16"


@pytest.mark.parametrize(
    ("text", "day_first", "remark"),
    [
        ("05/04/2024", True, "is read as 2024-04-05 (days first, as in the log)."),
        ("05/04/2024", False, "is read as 2024-05-04 (months first, as in the log)."),
        ("5 Apr 2024 18:30", None, "is read as 2024-04-05 18:30."),
        ("2024-04-05", False, ""),
        ("2024-04-05T18:30:00Z", True, ""),
    ],
)
def test_a_time_that_does_not_begin_with_its_year_is_echoed_on_stderr(
    text: str,
    day_first: bool | None,
    remark: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[object] = []

    def parse(text: str, order: bool | None) -> Any:
        asked.append(order)
        time = pd.Timestamp(pd.to_datetime(text, dayfirst=bool(order))).tz_localize(None)
        return time.to_datetime64().astype("datetime64[ms]")

    monkeypatch.setattr("llmrec.cli.log_options.parse_cutoff", parse)
    read_time("Cutoff", text, day_first)
    assert capsys.readouterr().err.strip() == (remark and f"Cutoff {text} {remark}")
    assert asked == [day_first]


@pytest.mark.parametrize("option", ["--cutoff", "--until"])
@pytest.mark.parametrize("text", ["never", "2024-02-30"])
def test_a_time_that_is_none_is_refused_with_how_to_write_it(
    option: str, text: str, table: str
) -> None:
    line = command_line("recommend", table, "--mute", "war", option, text)
    shown = RUN.invoke(cli.app, line)
    assert isinstance(shown.exception, DataError)
    assert text in str(shown.exception)
    assert "write it as 20" in str(shown.exception)
