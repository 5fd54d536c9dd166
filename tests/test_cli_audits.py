"""`llmrec audit drift`: the table, one person's evidence, and who cannot be told."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from llmrec import cli
from llmrec.data.synthetic_drift import DriftWorld, make_drift_world
from llmrec.errors import LlmrecError
from llmrec.evaluation.drift_types import DRIFT_TYPES

RUN = CliRunner()


@pytest.fixture(scope="module")
def world() -> DriftWorld:
    return make_drift_world(20, n_days=728, events_per_month=20, seed=3)


@pytest.fixture(scope="module")
def table(world: DriftWorld, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The world's log with somebody who came once."""
    log, catalog = world.dataset.log, world.dataset.catalog
    frame = pd.DataFrame(
        {
            "user_id": log.user_ids[log.user_idx],
            "item_id": log.item_ids[log.item_idx],
            "timestamp": log.timestamp,
            "categories": [" ".join(catalog.categories_of(int(item))) for item in log.item_idx],
        }
    )
    path = tmp_path_factory.mktemp("log") / "log.csv"
    once = frame.iloc[:1].assign(user_id="once")
    pd.concat((frame, once)).to_csv(path, index=False)
    return str(path)


def run(table: str, *flags: str) -> str:
    """Give what the command prints."""
    shown = RUN.invoke(cli.app, ["audit", "drift", "--data", table, *flags])
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_the_table_has_each_type_and_whose_drift_is_not_told(table: str) -> None:
    shown = " ".join(run(table).split())
    assert [kind for kind in DRIFT_TYPES if kind not in shown] == []
    assert "drift of 20 people, 5 % false discoveries" in shown
    assert "Not told: 1 people with too few days or events." in shown


def test_as_json_it_is_the_same_people(table: str, world: DriftWorld) -> None:
    found: dict[str, Any] = json.loads(run(table, "--json"))
    assert found["not_told"] == 1
    assert sum(row["people"] for row in found["types"]) == len(found["people"]) == 20
    truth = dict(zip(world.dataset.log.user_ids, world.types, strict=True))
    right = [one["type"] == truth[one["user_id"]] for one in found["people"]]
    assert sum(right) >= 15


def test_one_person_is_shown_with_the_evidence(table: str) -> None:
    found: dict[str, Any] = json.loads(run(table, "--user", "u000001", "--json"))
    shown = run(table, "--user", "u000001")
    assert f"u000001: {found['type']}. {found['description']}" in " ".join(shown.split())
    assert f"p = {found['p_value']:.4f}, q = {found['q_value']:.4f}" in shown
    assert [kind for kind in found["statistics"] if kind not in shown] == []


def test_too_little_to_tell_is_not_called_no_drift(table: str) -> None:
    assert "not told" in run(table, "--user", "once")
    assert json.loads(run(table, "--user", "once", "--json")) == {"user_id": "once", "type": None}


def test_an_unknown_person_and_a_cycle_of_no_length_are_refused(table: str) -> None:
    shown = RUN.invoke(cli.app, ["audit", "drift", "--data", table, "--user", "nobody"])
    assert isinstance(shown.exception, LlmrecError)
    assert "nobody" in str(shown.exception)
    shown = RUN.invoke(cli.app, ["audit", "drift", "--data", table, "--cycle", "0"])
    assert shown.exit_code == 2
