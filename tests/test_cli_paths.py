"""Files that cannot be written: one line, before the work begins."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmrec import cli
from llmrec.cli import people
from llmrec.cli.paths import describe_os_error, require_chart_path, require_folder
from llmrec.data import options
from llmrec.errors import DataError
from llmrec.language.model import LanguageModel
from tests.forecasters.fakes import FakeModel
from tests.test_engine import frame

RUN = CliRunner()


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["llmrec", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(LanguageModel, "load", lambda name="", **_: FakeModel())
    path = tmp_path / "small.csv"
    frame(n_users=10).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ["forecast", "--user", "u001", "--chart", "{file}/me.png"],
        ["forecast", "--user", "u001", "--chart", "{file}/deeper/me.html"],
        ["forecast", "--user", "u001", "--store", "{file}"],
        ["evaluate", "--forecasters", "LastPeriod", "--out", "{file}/report"],
        ["demo", "--out", "{file}/charts"],
    ],
)
def test_a_path_below_a_file_is_refused_in_a_line_before_anything_is_read(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    for module in (people, options):
        monkeypatch.delattr(module, "load_dataset")
    file = tmp_path / "log.csv"
    file.write_text("")
    assert run_main(monkeypatch, *(text.format(file=file) for text in arguments)) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert f"{file} is a file; give another path." in shown.err
    assert shown.err.count("\n") == 1
    assert file.read_text() == ""


def test_a_missing_folder_is_made(table: Path, tmp_path: Path) -> None:
    chart = tmp_path / "new" / "folder" / "me.html"
    arguments = ["forecast", "--user", "u001", "--data", str(table), "--chart", str(chart)]
    shown = RUN.invoke(cli.app, arguments)
    assert shown.exit_code == 0, shown.output
    assert chart.is_file()


def test_a_folder_without_the_right_to_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(DataError, match="no right to write"):
        require_folder(tmp_path / "new" / "report")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "message"), [("me.gif", r"as \.png or \.html, not '\.gif'"), ("a.png", "is a folder")]
)
def test_a_chart_of_another_kind_or_in_the_place_of_a_folder_is_refused(
    name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(DataError, match=message):
        require_chart_path(tmp_path / name)


def test_an_error_of_a_file_while_writing_is_one_line_and_exit_status_1(
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    chart = tmp_path / "me.png"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(chart))

    monkeypatch.setattr("llmrec.explain.plots.save_png", full)
    arguments = ("forecast", "--user", "u001", "--data", str(table), "--chart", str(chart))
    assert run_main(monkeypatch, *arguments) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {chart}: No space left on device.")


def test_an_error_names_the_file_that_was_to_be_and_not_the_temporary_one() -> None:
    error = OSError(errno.EACCES, "Permission denied", ".me.png.x7", None, "me.png")
    assert describe_os_error(error).startswith("me.png: Permission denied.")
    assert describe_os_error(OSError("no network")) == "no network"
