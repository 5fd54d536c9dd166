"""The command batch: what it prints, its exit statuses, and errors in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from llmrec import cli
from tests.batch.test_job import write_log


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["batch", *map(str, arguments)], env={"COLUMNS": "200"})


def test_it_says_what_was_made_and_where(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    log, out = write_log(tmp_path / "log", events), tmp_path / "out"
    given = (engine_folder, "--data", log, "--out", out, "-k", 3, "--events-per-shard", 200)
    made = invoke(*given)
    assert made.exit_code == 0
    assert "40 people in 4 shards, as of 2020-04" in made.stderr
    assert len(pd.read_parquet(out / "recommendations")) == 120
    again = invoke(*given, "--resume", "--json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["n_people"] == 40


def test_rows_and_files_that_are_left_out_are_counted_and_the_status_tells_of_files(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    bad = events.iloc[:2].assign(item_id="of another shop")
    log = write_log(tmp_path / "log", pd.concat([events, bad]))
    made = invoke(engine_folder, "--data", log, "--out", tmp_path / "out", "--reasons", "none")
    assert made.exit_code == 0
    assert f"2 of {len(events) + 2} rows are no events, with the reason of each" in made.stderr
    (log / "part-1.parquet").write_text("no Parquet")
    made = invoke(engine_folder, "--data", log, "--out", tmp_path / "other", "--reasons", "none")
    assert made.exit_code == 3
    assert "part-1.parquet could not be read" in made.stderr
    assert "40 people" in made.stderr


def test_columns_of_other_names_are_read_in_pieces_too(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    named = events.set_axis(["household", "product", "when"], axis=1)
    log, columns = write_log(tmp_path / "log", named), "user=household,item=product,time=when"
    made = invoke(engine_folder, "--data", log, "--out", tmp_path / "out", "--columns", columns)
    assert made.exit_code == 0, made.output
    assert "40 people" in made.stderr


def test_reasons_of_another_kind_are_refused(engine_folder: Path, tmp_path: Path) -> None:
    made = invoke(engine_folder, "--out", tmp_path / "out", "--reasons", "long")
    assert "none, short, causes" in str(made.exception)


def test_other_files_are_loaded_whole(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    log = tmp_path / "log.csv"
    events.assign(categories="All").to_csv(log, index=False)
    made = invoke(engine_folder, "--data", log, "--out", tmp_path / "out")
    assert made.exit_code == 0, made.output
    assert "40 people" in made.stderr


@pytest.mark.parametrize("wrong", ["nothing here", "log"])
def test_an_engine_that_is_none_is_an_error_in_a_line(
    events: pd.DataFrame, tmp_path: Path, wrong: str
) -> None:
    log = write_log(tmp_path / "log", events)
    made = invoke(tmp_path / wrong, "--data", log, "--out", tmp_path / "out")
    assert "is no engine's folder" in str(made.exception)
