from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from llmrec import InterestEngine, cli, load_dataset
from llmrec.data.embedded import EMBEDDED_PARTS, GEMMA
from llmrec.data.readers import read_table
from llmrec.data.splits import split_windows
from llmrec.errors import LlmrecError
from llmrec.language.model import LanguageModel
from tests.forecasters.fakes import FakeModel
from tests.news_log import write_news_log
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


def test_forecast_further_ahead_tells_its_period_and_is_not_stored(
    table: str, tmp_path: Path
) -> None:
    arguments = ["forecast", "--user", "u001", "--data", table, "--horizon"]
    found = json.loads(RUN.invoke(cli.app, [*arguments, "2", "--json"]).stdout)
    assert found["horizon"] == 2
    assert found["forecast_of"].startswith("the period from ")
    assert {one["probability"] for one in found["statements"]} <= {None}
    folder = tmp_path / "store"
    shown = RUN.invoke(cli.app, [*arguments, "2", "--store", str(folder)])
    assert "give no --horizon to --store" in str(shown.exception)
    assert not folder.exists()
    assert RUN.invoke(cli.app, [*arguments, "5"]).exit_code == 2


def test_recommend_lists_k_items_and_answers_why_not(table: str) -> None:
    arguments = ["recommend", "--user", "u001", "--data", table, "-k", "3", "--why-not", "i004"]
    shown = RUN.invoke(cli.app, arguments)
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("Title") >= 3
    as_json = json.loads(RUN.invoke(cli.app, [*arguments, "--json"]).stdout)
    assert [item["rank"] for item in as_json["items"]] == [1, 2, 3]
    assert as_json["why_not"]


def test_recommend_counts_in_one_line_the_reworded_and_the_rejected_reasons(
    table: str,
) -> None:
    arguments = ["recommend", "--user", "u001", "--data", table, "-k", "3"]
    shown = RUN.invoke(cli.app, [*arguments, "--model-words"])
    note = "0 of 3 reasons are in the model's words; 3 did not hold and are not shown."
    assert note in shown.output
    assert "reasons are in" not in RUN.invoke(cli.app, arguments).output
    found = json.loads(RUN.invoke(cli.app, [*arguments, "--model-words", "--json"]).stdout)
    assert found["wording"] == note
    assert all(item["refused"] for item in found["items"])


def test_explain_shows_evidence_split_and_change_at_eighty_columns(table: str) -> None:
    arguments = ["explain", "u001", "i004", "--data", table, "-k", "3"]
    shown = RUN.invoke(cli.app, [*arguments, "--model-words"], env={"COLUMNS": "80"})
    assert shown.exit_code == 0, shown.output
    for part in ("Title 4", "Evidence", "events of War", "The score, in parts", "What would"):
        assert part in shown.output
    assert "did not hold and is not shown" in shown.output
    assert max(map(len, shown.output.splitlines())) <= 80
    found = json.loads(RUN.invoke(cli.app, [*arguments, "--json"]).stdout)
    parts = (found["item"]["scorer_parts"], found["item"]["category_parts"])
    total = sum(sum(part.values()) for part in parts)
    assert total == pytest.approx(found["item"]["score"], abs=1e-9)
    assert (found["what_removes"] is None) != (found["why_not"] is None)


def test_edits_are_shown_with_their_effect_before_the_list_and_verified_after(table: str) -> None:
    arguments = ["recommend", "--user", "u001", "--data", table, "-k", "5", "--mute", "war"]
    arguments += ["--edit", "twice as much drama, more foo, no horor"]
    shown = RUN.invoke(cli.app, arguments, env={"COLUMNS": "80"})
    assert shown.exit_code == 0, shown.output
    told = [
        *("Understood", "No War.", "Twice as much Drama.", "“horor” was taken for Horror."),
        *("Not understood, and left out", "“more foo”: “foo” is not one category"),
        *("What it will do", "are not listed", "The list with it", "Verified by ranking again"),
    ]
    places = [shown.output.index(text) for text in told]
    assert places == sorted(places)
    assert max(map(len, shown.output.splitlines())) <= 80


def test_edits_as_json_say_what_was_predicted_and_that_it_holds(table: str) -> None:
    arguments = ["recommend", "--user", "u001", "--data", table, "-k", "5", "--json"]
    arguments += ["--edit", "more drama; less comedies; keep action until March 2030"]
    arguments += ["--mute", "horror", "--until", "2031-01-01"]
    found = json.loads(RUN.invoke(cli.app, [*arguments, "--strength", "2"]).stdout)
    effect = found["effect"]
    assert effect["understood"] == [
        "No Horror until 1 January 2031.",
        "Twice as much Drama until 1 January 2031.",
        "Half as much Comedy until 1 January 2031.",
        "Keep Action as it is until 1 March 2030.",
    ]
    assert effect["held"] is True
    assert effect["strength"][1] == 2
    assert set(effect["categories"]) == {"Horror", "Drama", "Comedy", "Action"}
    assert (
        effect["categories"]["Drama"]["weight_after"]
        > effect["categories"]["Drama"]["weight_before"]
    )
    left_or_stayed = {item["item_id"] for item in found["items"]} - set(effect["entered"])
    assert len(left_or_stayed) + len(effect["left"]) == 5


def test_why_not_is_answered_with_the_edits(table: str) -> None:
    arguments = ["recommend", "--user", "u001", "--data", table, "--why-not", "i004"]
    shown = RUN.invoke(cli.app, [*arguments, "--mute", "war"])
    assert "Title 4 cannot be on the list: a category of it is muted." in shown.output


def test_help_shows_edits_apart_from_the_rest() -> None:
    shown = RUN.invoke(cli.app, ["recommend", "--help"], env={"COLUMNS": "80", "NO_COLOR": "1"})
    rest, edits = shown.output.split("Edits: what should differ from the forecast")
    for option in ("--edit", "--description", "--mute", "--until", "--strength"):
        assert f" {option} " in edits
    assert " --why-not " in rest
    of_explain = RUN.invoke(cli.app, ["explain", "--help"], env={"COLUMNS": "80", "NO_COLOR": "1"})
    assert of_explain.output.endswith(edits)


def test_an_edit_that_has_ended_is_shown_as_doing_nothing(table: str) -> None:
    arguments = ["recommend", "--user", "u001", "--data", table, "--mute", "war"]
    shown = RUN.invoke(cli.app, [*arguments, "--until", "2019-01-01"])
    assert "No War until 1 January 2019. It has ended and does nothing." in shown.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mute", "foo"], "no category, or more than one, is called 'foo'"),
        (["--edit", "more foo"], "“foo” is not one category"),
        (["--mute", "war", "--edit", "more war"], "two edits of 'War' contradict"),
        (["--mute", "war", "--until", "soon"], "'soon' is not a time"),
        (["--until", "2031-01-01"], "--until 2031-01-01 ends nothing"),
        (["--edit", "no war until 2030", "--until", "2031-01-01"], "2031-01-01 ends nothing"),
        (["--edit", "no war for 0 days"], "“for 0 days” is no time at all"),
        (["--why-not", "Titel 4"], "item 'Titel 4' is not known (25 items; for example 'Title 4'"),
        (["--edit", "no war, no drama, no action, no horror, no comedy"], "no category is left"),
    ],
)
def test_edits_that_cannot_be_applied_are_named(
    table: str, options: list[str], message: str
) -> None:
    shown = RUN.invoke(cli.app, ["recommend", "--user", "u001", "--data", table, *options])
    assert isinstance(shown.exception, LlmrecError)
    assert message in str(shown.exception)


def test_an_empty_list_is_named_as_such(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "llmrec.ranking.ranking.rankable_items", lambda *_: np.zeros(25, dtype=bool)
    )
    shown = RUN.invoke(cli.app, ["recommend", "--user", "u001", "--data", table])
    assert "Nothing is left" in shown.output


def test_an_item_is_named_by_its_title_as_well_as_by_its_id(table: str) -> None:
    shown = RUN.invoke(cli.app, ["explain", "u001", "tiTLE 4", "--data", table, "--json"])
    assert json.loads(shown.stdout)["item"]["item_id"] == "i004"


def test_a_changed_list_is_explained_with_the_edits_that_changed_it(table: str) -> None:
    arguments = ["explain", "u001", "i004", "--data", table, "--edit", "much more war"]
    shown = RUN.invoke(cli.app, arguments)
    assert shown.exit_code == 0, shown.output
    told = ["Understood", "4 times as much War.", "What it will do", "Title 4", "The score, in pa"]
    places = [shown.output.index(text) for text in told]
    assert places == sorted(places)
    found = json.loads(RUN.invoke(cli.app, [*arguments, "--json"]).stdout)
    assert found["effect"]["understood"] == ["4 times as much War."]
    plain = json.loads(RUN.invoke(cli.app, [*arguments[:5], "--json"]).stdout)
    assert found["item"]["forecast_shares"] == plain["item"]["forecast_shares"]
    assert found["item"]["edited_shares"]["War"] > plain["item"]["forecast_shares"]["War"]


def test_edits_written_into_the_description_are_shown_and_applied(
    table: str, tmp_path: Path
) -> None:
    arguments = ["recommend", "--user", "u001", "--data", table, "-k", "3", "--json"]
    description = json.loads(RUN.invoke(cli.app, arguments).stdout)["description"]
    edited = tmp_path / "edited.txt"
    edited.write_text(description + "no war, more foo", encoding="utf-8")
    found = json.loads(RUN.invoke(cli.app, [*arguments, "--description", str(edited)]).stdout)
    assert found["effect"]["understood"] == ["No War."]
    assert [one["said"] for one in found["effect"]["not_understood"]] == ["more foo"]
    assert not any("War" in item["forecast_shares"] for item in found["items"])
    edited.write_text(description.replace(" ", "\n"), encoding="utf-8")
    shown = RUN.invoke(cli.app, [*arguments, "--description", str(edited)])
    assert "no edit is written into the forecast's description" in str(shown.exception)


def test_a_calibrated_list_says_that_it_is_mixed(table: str) -> None:
    arguments = ["recommend", "--user", "u001", "--data", table, "--calibrate", "0.9"]
    shown = " ".join(RUN.invoke(cli.app, [*arguments, "--mute", "war"]).output.split())
    assert "The list is mixed to follow the forecast (dial 0.9)" in shown
    assert "Left the list" not in shown


def test_a_cutoff_beyond_the_end_of_the_log_is_remarked(table: str) -> None:
    arguments = ["recommend", "--user", "u001", "--data", table, "--json", "--cutoff"]
    shown = RUN.invoke(cli.app, [*arguments, "2030-01-01"])
    assert json.loads(shown.stdout)["items"]
    assert "The log ends on" in shown.stderr
    assert "starts on 1 Jan 2030" in shown.stderr
    assert RUN.invoke(cli.app, [*arguments, "2020-05-01"]).stderr == ""


def test_evaluate_prints_a_tidy_table_with_intervals_and_writes_a_report(
    table: str, tmp_path: Path
) -> None:
    arguments = ["evaluate", "--data", table, "--forecasters", "LastPeriod,LLM", "--users", "55"]
    shown = RUN.invoke(cli.app, [*arguments, "--out", str(tmp_path / "report"), "--json"])
    rows = [row for row in json.loads(shown.stdout) if row["slice"] == "all"]
    assert {"DecayedDirichlet", "LLM on DecayedDirichlet"} <= {row["model"] for row in rows}
    assert {row["split"] for row in rows} == {"test 1", "test 2"}
    bounded = [row for row in rows if row["low"] is not None]
    assert all(row["low"] - 1e-9 <= row["value"] <= row["high"] + 1e-9 for row in bounded)
    written = {path.name for path in (tmp_path / "report").iterdir()}
    assert written == {"report.html", "scores.parquet", "table.parquet"}


def test_an_engine_of_another_log_is_remarked_in_one_line(table: str, tmp_path: Path) -> None:
    other = read_table(frame(n_users=20), name="shop", period="7D")
    InterestEngine.from_pretrained(data=other).save_pretrained(tmp_path / "engine")
    arguments = ["forecast", "--user", "u001", "--data", table, "--json", "--model"]
    shown = RUN.invoke(cli.app, [*arguments, str(tmp_path / "engine")])
    assert json.loads(shown.stdout)["source"]["how"] == "fallback"
    (line,) = shown.stderr.splitlines()
    assert line.startswith(f"engine {tmp_path / 'engine'} was fitted on 'shop', not on this log")


def test_evaluate_judges_a_saved_engine_on_windows_after_its_fit(
    table: str, tmp_path: Path
) -> None:
    dataset, folder = load_dataset(table), tmp_path / "engine"
    tests = split_windows(dataset)
    cutoff = tests["test 2"][0].history.cutoff
    InterestEngine.from_pretrained(data=dataset, cutoff=cutoff).save_pretrained(folder)
    arguments = ["evaluate", "--data", table, "--forecasters", "LastPeriod,LLM", "--json"]
    shown = RUN.invoke(cli.app, [*arguments, "--model", str(folder), "--users", "50"])
    rows = [row for row in json.loads(shown.stdout) if row["metric"] == "log_loss"]
    judged = [row for row in rows if row["model"] == "engine engine" and row["slice"] == "all"]
    assert [(row["split"], row["n"]) for row in judged] == [("test 2", 50)]
    assert not any(row["model"].startswith("LLM") for row in rows)
    (line,) = shown.stderr.splitlines()
    assert f"not evaluated on {len(tests['test 1'])} windows that begin earlier" in line


def test_evaluate_without_the_llm_needs_no_model(
    table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(LanguageModel, "load")
    shown = RUN.invoke(cli.app, ["evaluate", "--data", table, "--forecasters", "LastPeriod"])
    assert shown.exit_code == 0, shown.output
    assert "LastPeriod" in shown.output


def test_an_unknown_forecaster_is_named_beside_those_there_are(table: str) -> None:
    shown = RUN.invoke(cli.app, ["evaluate", "--data", table, "--forecasters", "Oracle"])
    assert "no forecaster is called 'Oracle'; choose from LastPeriod" in str(shown.exception)


def test_an_audit_says_what_was_lost(table: str) -> None:
    arguments = ["audit", "names", "--data", table, "--users", "55", "--json"]
    shown = RUN.invoke(cli.app, [*arguments, "--forecasters", "RidgeAutoregression,LLM"])
    rows = json.loads(shown.stdout)
    changes = {row["model"]: row["value"] for row in rows if row["metric"] == "log_loss_change"}
    assert changes["Mean"] == changes["RidgeAutoregression"] == 0
    assert changes["LLM x counting (a = 1)"] != 0  # it reads names
    wrong = RUN.invoke(cli.app, ["audit", "colours", "--data", table])
    assert "no audit is called 'colours'; choose from order, names" in str(wrong.exception)
    listed = RUN.invoke(cli.app, ["audit", "--help"]).output
    assert [name for name in ("order", "names", "titles", "length") if name not in listed] == []


@pytest.fixture
def later(tmp_path: Path) -> str:
    """The same people's log, eighty days longer than ``table``'s first 120 days."""
    whole = frame(n_users=100, n_days=200)
    path = tmp_path / "late" / "small.csv"
    path.parent.mkdir()
    whole.to_csv(path, index=False)
    whole[whole["timestamp"] < whole["timestamp"].min() + pd.Timedelta("120D")].to_csv(
        tmp_path / "small.csv", index=False
    )
    return str(path)


def test_forecasts_are_stored_and_scored_when_their_period_has_passed(
    later: str, tmp_path: Path
) -> None:
    early, folder = str(tmp_path / "small.csv"), str(tmp_path / "kept")
    people = ["--user", "u001", "--user", "u002"]
    arguments = ["forecast", *people, "--data", early, "--store", folder]
    shown = RUN.invoke(cli.app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "Stored: " in shown.output
    again = json.loads(RUN.invoke(cli.app, [*arguments, "--json"]).stdout)
    assert [one["user_id"] for one in again] == ["u001", "u002"]
    assert Path(again[0]["receipt"]).is_file()
    pending = RUN.invoke(cli.app, ["track-record", folder, "--data", early])
    assert "Not scored: 2 pending." in pending.output
    found = json.loads(
        RUN.invoke(cli.app, ["track-record", folder, "--data", later, "--json"]).stdout
    )
    assert [one["user_id"] for one in found["receipts"]] == ["u001", "u002"]
    assert all(one["in_advance"] and one["same_past"] for one in found["receipts"])
    losses = [one["log_loss"] for one in found["receipts"]]
    (row,) = (row for row in found["record"] if row["metric"] == "log_loss")
    assert row["value"] == pytest.approx(sum(losses) / 2)
    own = RUN.invoke(cli.app, ["track-record", folder, "--data", later, "--user", "u002"])
    assert f"{losses[1]:.3f}" in own.output
    assert f"{losses[0]:.3f}" not in own.output


def test_a_track_record_fits_a_terminal_of_eighty_columns(
    later: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, folder = str(tmp_path / "small.csv"), str(tmp_path / "kept")
    RUN.invoke(cli.app, ["forecast", "--user", "u001", "--data", early, "--store", folder])
    monkeypatch.setattr("llmrec.cli.render.console", Console(width=80, highlight=False))
    shown = RUN.invoke(cli.app, ["track-record", folder, "--data", later, "--user", "u001"])
    assert shown.exit_code == 0, shown.output
    for part in ("made in advance", "gain on the mean of the past", "on counting"):
        assert part in shown.output
    assert "…" not in shown.output
    assert max(map(len, shown.output.splitlines())) <= 80


def test_hindsight_and_another_log_are_shown(table: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "kept")
    arguments = ["--user", "u001", "--data", table, "--cutoff", "2020-06-01", "--store", folder]
    RUN.invoke(cli.app, ["forecast", *arguments])
    shown = RUN.invoke(cli.app, ["track-record", folder, "--data", table])
    assert "made in hindsight: the log then reached beyond the cutoff" in shown.output
    other = tmp_path / "other.csv"
    frame(n_users=20, n_days=100).to_csv(other, index=False)
    wrong = RUN.invoke(cli.app, ["track-record", folder, "--data", str(other)])
    assert "Not scored: 1 other log." in wrong.output
    assert "made from 'small'" in wrong.output
    assert "--data" in wrong.output


def test_a_chart_of_several_people_is_refused(table: str) -> None:
    people = ["--user", "u001", "--user", "u002"]
    shown = RUN.invoke(cli.app, ["forecast", *people, "--data", table, "--chart", "picture.png"])
    assert "a chart shows one person" in str(shown.exception)


def test_datasets_names_every_licence() -> None:
    rows = json.loads(RUN.invoke(cli.app, ["datasets", "--json"]).stdout)
    assert [row["name"] for row in rows] == [*(part.name for part in EMBEDDED_PARTS), GEMMA.name]
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


def test_flags_and_the_command_of_0_1_still_work_and_are_not_shown(
    table: str, tmp_path: Path
) -> None:
    folder = str(tmp_path / "stored")
    arguments = ["--user", "u001", "--data", table]
    assert RUN.invoke(cli.app, ["forecast", *arguments, "--receipt", folder]).exit_code == 0
    assert RUN.invoke(cli.app, ["receipts", folder, "--data", table]).exit_code == 0
    options = ["recommend", *arguments, "--json"]
    old = RUN.invoke(cli.app, [*options, "--wish=twice as much drama", "--in-model-words"])
    new = RUN.invoke(cli.app, [*options, "--edit=twice as much drama", "--model-words"])
    assert old.exit_code == new.exit_code == 0
    assert json.loads(old.stdout) == json.loads(new.stdout)
    for shown in (["--help"], ["recommend", "--help"], ["forecast", "--help"]):
        output = RUN.invoke(cli.app, shown).output
        assert not {"receipts", "--wish", "--receipt", "--in-model-words"} & set(output.split())


def test_evaluate_shows_how_lists_are_ordered_where_a_log_tells_what_was_shown(
    tmp_path: Path,
) -> None:
    log = write_news_log(tmp_path / "news", n_readers=12, n_lists=40)
    report = tmp_path / "report"
    arguments = ["evaluate", "--data", str(log), "--forecasters", "LastPeriod"]
    shown = RUN.invoke(cli.app, [*arguments, "--out", str(report)], env={"COLUMNS": "80"})
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.stdout.splitlines())) <= 80
    text = " ".join(shown.stdout.split())
    assert text.index("what was shown") < text.index("titled like what was taken")
    assert "lists are left out" in text
    table = pd.read_parquet(report / "impressions.parquet")
    assert set(table["slice"]) == {"all", "new"}
    rows = json.loads(RUN.invoke(cli.app, [*arguments, "--json"]).stdout)
    auc = {row["model"]: row["value"] for row in rows if row["metric"] == "auc"}
    assert auc["titled like what was taken"] > auc["popular in the last 28 days"]
    assert {row["split"] for row in rows} == {"test", "impressions"}
