"""The commands about engines: fit, info, and evaluate of engines."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

import llmrec.engine_refit
import llmrec.evaluation.engine_scores
from llmrec import cli, load_dataset
from llmrec.cli import render
from llmrec.cli.comparison_tables import show_comparison
from llmrec.cli.engines import trained_windows
from llmrec.data.provenance import events_fingerprint
from llmrec.data.splits import split_windows
from llmrec.data.stored import Stored
from llmrec.engine_fit import fit_engine
from llmrec.engine_info import describe_engine
from llmrec.fit_store import FitStore
from llmrec.language.adapters import AdapterMetadata
from tests.saved_settings import change_settings
from tests.worlds import CATEGORIES, START

RUN = CliRunner()
FIT = ["fit", "--model", "none", "--cutoff", "2020-03-10"]
# Most statistics of items are left out: the rest is fitted in seconds.
WITHOUT = [
    *("Cosine", "EaseSeasonal", "EaseStrong", "ImplicitALS", "PersonalRepeatOfWeeks"),
    *("PersonalRepeatOfYears", "PopularityOfAllTime", "PopularityOfQuarter", "PureSVDByDays"),
    *("PureSVDOf64", "SuccessorsByDays", "NeighbouringUsers"),
]


def invoke(*arguments: str, columns: int = 80) -> Result:
    """Run a command at a width of the terminal."""
    return RUN.invoke(cli.app, [str(one) for one in arguments], env={"COLUMNS": str(columns)})


def frame(n_users: int = 70, n_days: int = 98) -> pd.DataFrame:
    """Make people who take 25 items of five categories, each with a taste that stays."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(n_users):
        taste = rng.dirichlet(np.ones(5))
        for _ in range(60):
            item = int(rng.choice(5, p=taste)) + 5 * int(rng.integers(5))
            time = START + np.timedelta64(int(rng.integers(n_days * 24 * 3600)), "s")
            rows.append(
                (f"u{user:03d}", f"i{item:03d}", time, f"Title {item}", CATEGORIES[item % 5])
            )
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "title", "categories"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold a log, and engines fitted on it with efforts quick and standard."""
    folder = tmp_path_factory.mktemp("engines")
    frame().to_csv(folder / "small.csv", index=False)
    data = ["--data", str(folder / "small.csv"), "--period", "14D"]
    quick = invoke(*FIT, *data, "--effort", "quick", "--out", str(folder / "quick"))
    assert quick.exit_code == 0, quick.output
    (folder / "quick.txt").write_text(quick.stdout)
    (folder / "quick.log").write_text(quick.stderr)
    without = ["--without", ", ".join(WITHOUT)]
    standard = invoke(*FIT, *data, *without, "--out", str(folder / "standard"))
    assert standard.exit_code == 0, standard.output
    return folder


@pytest.fixture(autouse=True)
def few_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llmrec.evaluation.engine_scores, "MAX_PEOPLE", 5)


def log_of(folder: Path) -> list[str]:
    return ["--data", str(folder / "small.csv"), "--period", "14D"]


def test_fit_prints_what_info_prints_and_leaves_no_work_behind(folder: Path) -> None:
    shown = invoke("info", str(folder / "quick"))
    assert shown.stdout == (folder / "quick.txt").read_text()
    assert {path.name for path in folder.iterdir()} == {
        *("small.csv", "quick", "standard", "quick.txt", "quick.log"),
    }


def test_fit_says_on_stderr_what_it_is_at_and_how_long_the_rest_takes(folder: Path) -> None:
    lines = (folder / "quick.log").read_text().splitlines()
    assert "DecayedDirichlet ..." in lines
    assert any("% done, about" in line and line.endswith("left") for line in lines)


def test_info_shows_each_member_with_its_figures_at_eighty_columns(folder: Path) -> None:
    shown = invoke("info", str(folder / "standard")).stdout
    assert max(map(len, shown.splitlines())) <= 80
    found = json.loads(invoke("info", str(folder / "standard"), "--json").stdout)
    members = [*found["forecast"]["members"], *found["ranking"]["members"]]
    rows = [line.split() for line in shown.splitlines()]
    for one in members:
        (row,) = [row for row in rows if row and row[0] == one["name"] and len(row) > 4]
        assert row[1] == ("-" if one["alone"] is None else f"{one['alone']:.4f}")
        assert row[-1] == ("yes" if one["kept"] else "no")
    names = {one["name"] for one in members}
    assert {"GBDTReranker", "SparseEaseByDays", "GlobalDrift"} <= names
    assert not names & set(WITHOUT)
    assert (found["effort"], found["asked"], found["reason"]) == ("standard", "standard", "")
    assert sum(found["sizes"].values()) == sum(
        path.stat().st_size for path in (folder / "standard").rglob("*") if path.is_file()
    )


def test_info_reads_neither_a_log_nor_a_model(folder: Path) -> None:
    code = (
        "import sys; from llmrec import cli; cli.app(sys.argv[1:], standalone_mode=False); "
        "print({'torch', 'transformers', 'lightgbm'} & set(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "info", str(folder / "standard")]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(cli.__file__).parents[2]
    )
    assert "Effort standard" in done.stdout
    assert done.stderr == "set()\n"


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """Copy the quick engine, to be broken."""
    for path in (folder / "quick").rglob("*"):
        if path.is_file():
            target = tmp_path / "mine" / path.relative_to(folder / "quick")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "mine"


@pytest.mark.parametrize("how", ["missing", "cut off", "swapped"])
def test_info_names_each_file_that_is_not_the_one_that_was_saved(
    folder: Path, copied: Path, how: str
) -> None:
    for part in json.loads((copied / "engine.json").read_text())["parts"]:
        whole = (copied / part).read_bytes()
        if how == "missing":
            (copied / part).unlink()
        elif how == "cut off":
            (copied / part).write_bytes(whole[:-1])
        else:
            (copied / part).write_bytes((folder / "small.csv").read_bytes())
        error = str(invoke("info", str(copied)).exception)
        assert str(copied / part) in error
        (copied / part).write_bytes(whole)
    assert invoke("info", str(copied)).exit_code == 0


@pytest.mark.parametrize("member", ["name", "loss", "kept"])
def test_info_refuses_a_report_that_lacks_a_figure(copied: Path, member: str) -> None:
    change_settings(
        copied / "engine.json",
        lambda values: values["report"]["forecast"]["members"][0].pop(member),
    )
    assert f"holds a report that cannot be read (KeyError: '{member}')" in str(
        invoke("info", str(copied)).exception
    )


def test_info_says_what_is_there_instead_of_an_engine(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("a")
    for name, file in (("lora", "adapter.json"), ("base", "config.json"), ("else", "notes.txt")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("{}")
    for name, what in (
        ("nowhere", "does not exist"),
        ("log.csv", "is a file"),
        ("lora", r"holds an adapter (adapter.json) and no engine.json"),
        ("base", r"holds a language model (config.json) and no engine.json"),
        ("else", "holds no engine.json"),
    ):
        error = str(invoke("info", str(tmp_path / name)).exception)
        assert error.startswith(f"{tmp_path / name} {what}"), error


def test_info_of_format_1_shows_what_it_has(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "counting": {"decay": 0.6, "strength": 20.0, "mix": "all"},
        "blend": {"RecentPopularity": 0.25, "Ease": 0.75},
        "dataset": "shop",
        "fitted_before": "2020-05-01T00:00:00.000",
    }
    (tmp_path / "engine.json").write_text(json.dumps(settings))
    shown = invoke("info", str(tmp_path), columns=120).stdout
    assert "Its format is 1" in shown
    assert "Counting: decay 0.6, strength 20.0, mix all." in shown
    assert "Blend: Ease 0.750, RecentPopularity 0.250." in shown
    assert "Fitted on events before 2020-05-01 00:00:00.000." in shown


def test_fit_says_which_effort_it_did_instead(tmp_path: Path) -> None:
    frame(n_users=20).to_csv(tmp_path / "few.csv", index=False)
    data = ["--data", str(tmp_path / "few.csv"), "--period", "14D"]
    shown = invoke(*FIT, *data, "--out", str(tmp_path / "mine"))
    assert "effort 'quick' was fitted: the log has 20 windows in its last period" in shown.stderr
    info = describe_engine(tmp_path / "mine")
    assert (info.asked, info.effort) == ("standard", "quick")
    assert any(
        line.strip().startswith("'standard' was asked for, but the log") for line in info.lines()
    )


@pytest.mark.parametrize("what", ["file", "inside a file", "other things", "calibrated"])
def test_fit_refuses_a_folder_to_write_before_it_reads_the_log(tmp_path: Path, what: str) -> None:
    out = tmp_path / "out"
    arguments = [*FIT, "--data", str(tmp_path / "nowhere.csv")]
    if what in ("file", "inside a file"):
        out.write_text("mine")
        out = out / "engine" if what == "inside a file" else out
        expected = "is a file"
    else:
        out.mkdir()
        (out / "notes.txt").write_text("mine")
        expected = "holds 'notes.txt' and no engine.json"
    if what == "calibrated":
        (out / "engine.json").write_text("{}")
        (out / "calibration.json").write_text("{}")
        arguments += ["--model", "smollm2-135m"]
        expected = "has a calibrated language model, and effort 'standard' calibrates none"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert expected in str(invoke(*arguments, "--out", str(out)).exception)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_fit_refuses_efforts_and_members_that_there_are_not(folder: Path, tmp_path: Path) -> None:
    arguments = [*FIT, *log_of(folder), "--out", str(tmp_path / "mine")]
    wrong = invoke(*arguments, "--effort", "most")
    assert wrong.exit_code == 2
    assert "'most' is none of quick, standard, best" in wrong.stderr
    unknown = invoke(*arguments, "--effort", "quick", "--without", "GlobalDrift,Oracle")
    assert "no member is called 'Oracle'; choose from" in str(unknown.exception)
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("keep", [False, True])
def test_a_killed_fit_goes_on_from_what_was_trained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: bool
) -> None:
    trained, killed = [], []

    def train() -> Stored:
        trained.append("net")
        return Stored("Net", {"seed": 0})

    def with_a_net(*arguments: Any, store: FitStore | None = None, **options: Any) -> Any:
        if store is not None:
            store.get("Net", {}, train)
            if not killed:
                killed.append(True)
                raise KeyboardInterrupt
        return fit_engine(*arguments, store=store, **options)

    monkeypatch.setattr(llmrec.engine_refit, "fit_engine", with_a_net)
    work = tmp_path / ".mine.fit"
    arguments = [*FIT, *log_of(folder), "--effort", "quick", "--out", str(tmp_path / "mine")]
    first = invoke(*arguments)
    assert first.exit_code != 0
    assert f"is stored in {work}: the same command goes on from there" in first.stderr
    assert not (tmp_path / "mine").exists()
    again = invoke(*arguments, *["--keep-work"] * keep)
    assert again.exit_code == 0, again.output
    assert trained == ["net"]
    assert work.exists() == keep


def test_windows_that_an_adapter_learned_from_are_left_out(folder: Path, tmp_path: Path) -> None:
    dataset = load_dataset(str(folder / "small.csv"), period="14D")
    about = AdapterMetadata(
        base_model="base",
        base_fingerprint="",
        labels=dataset.catalog.categories,
        categories=dataset.catalog.categories,
        prompt="forecast-v3",
        dataset=dataset.name,
        data_fingerprint=events_fingerprint(dataset.log),
        cutoff="2020-03-01",
        period="14D",
        seed=0,
        config={},
        metrics={},
        versions={},
    )
    model = SimpleNamespace(adapter=str(tmp_path), name="base")
    engine: Any = SimpleNamespace(language=SimpleNamespace(model=model))
    splits = split_windows(dataset)
    about.save(tmp_path)
    is_trained = trained_windows(engine, dataset)
    assert is_trained is not None
    assert all(map(is_trained, splits["validation"]))
    assert not any(map(is_trained, splits["test 2"]))
    for other in (replace(about, dataset="other"), replace(about, data_fingerprint="changed")):
        other.save(tmp_path)
        assert trained_windows(engine, dataset) is None
    assert trained_windows(SimpleNamespace(language=None), dataset) is None  # type: ignore[arg-type]


def test_evaluate_judges_several_engines_by_forecast_list_and_explanations(folder: Path) -> None:
    engines = ["--model", str(folder / "quick"), "--model", str(folder / "standard")]
    arguments = ["evaluate", *log_of(folder), *engines, "--forecasters", "LastPeriod"]
    shown = invoke(*arguments, "--json")
    assert shown.exit_code == 0, shown.output
    rows = [row for row in json.loads(shown.stdout) if row["slice"] == "all"]
    values = {(row["model"], row["metric"]): row for row in rows if row["split"] == "test 2"}
    for engine in ("engine quick", "engine standard"):
        ndcg, gain = values[engine, "ndcg@10"], values[engine, "ndcg@10_gain"]
        baseline = values[engine, "popularity_ndcg@10"]["value"]
        assert ndcg["value"] - baseline == pytest.approx(gain["value"], abs=1e-9)
        assert gain["low"] <= gain["value"] <= gain["high"]
        assert ndcg["n"] == values[engine, "log_loss"]["n"]
        assert values[engine, "statements_supported"]["value"] == 1
        assert values[engine, "explanations_supported"]["value"] == 1
        assert 0 <= values[engine, "statements_true"]["value"] <= 1
    assert ("LastPeriod", "log_loss") in values
    assert ("LastPeriod", "ndcg@10") not in values
    lists = [values[engine, "ndcg@10"]["value"] for engine in ("engine standard", "engine quick")]
    difference = values["engine standard", "ndcg@10_difference"]
    assert difference["value"] == pytest.approx(lists[0] - lists[1], abs=1e-9)
    with render.console.capture() as printed:
        show_comparison("small", pd.DataFrame(rows))
    shown_line = " ".join(printed.get().split())
    assert f"engine standard against engine quick: NDCG@10 {difference['value']:+.4f}" in shown_line


def test_evaluate_shows_engines_in_a_table_of_their_own_at_eighty_columns(
    folder: Path, tmp_path: Path
) -> None:
    arguments = ["evaluate", *log_of(folder), "--model", str(folder / "quick")]
    shown = invoke(*arguments, "--forecasters", "LastPeriod", "--out", str(tmp_path / "report"))
    assert max(map(len, shown.stdout.splitlines())) <= 80
    text = " ".join(shown.stdout.split())
    assert text.index("engine quick") < text.index("lists and explanations")
    assert "statements_true" in (tmp_path / "report" / "report.html").read_text()


def test_evaluate_takes_one_bare_model(folder: Path) -> None:
    arguments = ["evaluate", *log_of(folder), "--model", "smollm2-135m", "--model", "gpt2"]
    assert "--model gpt2 is a second language model" in str(invoke(*arguments).exception)
