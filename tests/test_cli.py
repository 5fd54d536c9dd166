from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmrec import cli
from llmrec.language.model import LanguageModel
from tests.forecasters.fakes import FakeModel
from tests.test_engine import frame

RUN = CliRunner()


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LanguageModel, "load", lambda name="", **_: FakeModel())


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "small.csv"
    frame(n_users=100, n_days=200).to_csv(path, index=False)
    return str(path)


def test_forecast_draws_and_prints_and_writes_a_chart(table: str, tmp_path: Path) -> None:
    chart = tmp_path / "u001.png"
    shown = RUN.invoke(
        cli.app, ["forecast", "--user", "u001", "--data", table, "--chart", str(chart)]
    )
    assert shown.exit_code == 0, shown.output
    assert "u001" in shown.output
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_forecast_as_json_is_json_and_nothing_else(table: str) -> None:
    shown = RUN.invoke(cli.app, ["forecast", "--user", "u001", "--data", table, "--json"])
    found = json.loads(shown.stdout)
    assert found["user_id"] == "u001"
    assert sum(found["category_weights"].values()) == pytest.approx(1)
    assert found["source"]["how"] == "fallback"


def test_recommend_lists_k_items_and_answers_why_not(table: str) -> None:
    arguments = ["recommend", "--user", "u001", "--data", table, "-k", "3", "--why-not", "i004"]
    shown = RUN.invoke(cli.app, arguments)
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("Title") >= 3
    as_json = json.loads(RUN.invoke(cli.app, [*arguments, "--json"]).stdout)
    assert [item["rank"] for item in as_json["items"]] == [1, 2, 3]
    assert as_json["why_not"]


def test_evaluate_prints_a_tidy_table_with_intervals(table: str) -> None:
    arguments = ["evaluate", "--data", table, "--users", "55", "--json"]
    rows = json.loads(RUN.invoke(cli.app, arguments).stdout)
    assert {"DecayedDirichlet", "LLM calibrated"} <= {row["model"] for row in rows}
    assert {row["split"] for row in rows} == {"validation", "test 1", "test 2"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows)
    bare = RUN.invoke(cli.app, [*arguments[:-1], "--no-llm"])
    assert bare.exit_code == 0
    assert "LLM" not in bare.output


def test_datasets_names_every_licence() -> None:
    rows = json.loads(RUN.invoke(cli.app, ["datasets", "--json"]).stdout)
    assert {row["name"] for row in rows} == {"smollm2-135m", "ml-100k", "completejourney"}
    assert all(row["licence"] for row in rows)
    assert "smollm2-135m" in RUN.invoke(cli.app, ["datasets"]).output


def test_env_says_what_a_bug_report_needs() -> None:
    found = json.loads(RUN.invoke(cli.app, ["env", "--json"]).stdout)
    assert {"python", "torch", "transformers", "cache", "device"} <= set(found)


def test_an_error_of_ours_is_one_line_and_exit_status_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["llmrec", "forecast", "--user", "1", "--data", "no-such-log"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    assert "no-such-log" in capsys.readouterr().err


def test_a_chart_of_an_unknown_kind_is_refused(table: str) -> None:
    arguments = ["forecast", "--user", "u001", "--data", table, "--chart", "picture.gif"]
    shown = RUN.invoke(cli.app, arguments)
    assert shown.exit_code != 0
    assert "gif" in str(shown.exception)
