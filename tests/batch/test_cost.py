"""What a batch costs: by people served here, step by step."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from llmrec import cli
from llmrec.batch import BatchCost, BatchOptions, measure_cost, run_batch
from llmrec.batch.cost import STEPS_OF
from tests.batch.test_job import write_log


def test_every_step_is_measured_and_people_add_up(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", events)
    cost = measure_cost(engine_folder, log, n_measured=30)
    assert cost.n_measured == 30
    assert list(cost.seconds_of) == list(STEPS_OF["causes"])
    assert all(seconds >= 0 for seconds in cost.seconds_of.values())
    assert cost.seconds("none") <= cost.seconds("short") <= cost.seconds("causes")
    assert cost.bytes_of["none"] < cost.bytes_of["short"]
    assert cost.effort == "quick"


def test_a_log_of_fewer_people_is_measured_whole_and_its_bytes_are_those_of_a_batch(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    log, out = write_log(tmp_path / "log", events), tmp_path / "out"
    cost = measure_cost(engine_folder, log, BatchOptions(k=5))
    assert cost.n_measured == 40
    run_batch(engine_folder, log, out, BatchOptions(k=5))
    files = [*out.glob("recommendations/*"), *out.glob("forecasts/*")]
    written = sum(path.stat().st_size for path in files)
    assert cost.disk_gb(40, "short") * 1e9 == pytest.approx(written, rel=0.5)


def test_hours_and_gigabytes_are_of_as_many_people_as_are_asked_for() -> None:
    seconds = dict.fromkeys(STEPS_OF["causes"], 0.001)
    cost = BatchCost("shop", "quick", 100, seconds, {"none": 500, "short": 1000, "causes": 1000}, 1)
    assert cost.cpu_hours(3_600_000, "none") == pytest.approx(4)
    assert cost.cpu_hours(3_600_000, "causes") == pytest.approx(6)
    assert cost.disk_gb(1_000_000, "none") == pytest.approx(0.5)


def test_the_command_prints_a_table_or_json(
    engine_folder: Path, events: pd.DataFrame, tmp_path: Path
) -> None:
    log = str(write_log(tmp_path / "log", events))
    command = ["cost", str(engine_folder), "--data", log, "--people", "1e6"]
    shown = CliRunner().invoke(cli.app, command, env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    for text in ("1,000,000 people, by 40 here", "CPU hours", "where the time goes", "forecasts"):
        assert text in shown.stdout
    plain = CliRunner().invoke(cli.app, [*command, "--json"])
    (found,) = json.loads(plain.stdout)
    assert found["n_measured"] == 40
