"""The recipe is run whole, as a user would, on logs of a few people."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

from llmrec.data.readers import load_dataset
from llmrec.data.splits import split_windows
from llmrec.forecasters.cell_nets import ALL_LOGS, NETS_FILE, PretrainedNets
from llmrec.forecasters.pretrained_forecaster import PretrainedForecaster
from llmrec.training.forecaster_pretraining import PretrainingConfig, available_logs
from llmrec.training.typed_config import ConfigError, load_typed
from tests import worlds

RECIPE = Path(__file__).parents[2] / "finetune/pretrain_forecaster.py"


def write_log(path: Path, seed: int) -> str:
    events = worlds.log(30, 7, seed=seed)
    frame = pd.DataFrame(
        {
            "user_id": events.user_ids[events.user_idx],
            "item_id": events.item_ids[events.item_idx],
            "timestamp": events.timestamp,
            "title": [f"Title {seed} {item}" for item in events.item_idx],
            "categories": [worlds.CATEGORIES[item % 5] for item in events.item_idx],
        }
    )
    frame.to_csv(path, index=False)
    return str(path)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for seed in (1, 2):
        write_log(tmp_path / f"log{seed}.csv", seed)
    monkeypatch.setenv("FIRST_LOG", str(tmp_path / "log1.csv"))
    path = tmp_path / "config.yaml"
    path.write_text(
        f"""
logs:
  - {{data: $FIRST_LOG, name: first, periods: [7D, 5 events], licence: free}}
  - {{data: {tmp_path}/log2.csv, name: second, periods: [7D]}}
  - {{data: $NO_SUCH_LOG, name: third, periods: [7D]}}
out: {tmp_path}/out
work: {tmp_path}/work
panels: 2
recuts: 1
made_up_logs: 1
n_nets: 1
width: 4
steps: 5
"""
    )
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [str(RECIPE), *arguments])
    runpy.run_path(str(RECIPE), run_name="__main__")


def test_nets_are_trained_with_and_without_each_log_and_the_same_again(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, str(config))
    found = PretrainedNets.load(tmp_path / "out")
    assert set(found.nets) == {ALL_LOGS, "first", "second"}
    dataset = load_dataset(str(tmp_path / "log2.csv"), period="7D")
    assert found.choose(dataset.catalog).left_out == "second"
    windows = split_windows(dataset)
    fitted = PretrainedForecaster(nets=found.choose(dataset.catalog)).fit(windows["validation"])
    assert len(fitted.forecast([window.history for window in windows["test 2"]])) > 0

    card = (tmp_path / "out/README.md").read_text()
    assert "| first | 7D, 5 events | free |" in card
    assert "| third" not in card
    before = (tmp_path / "out" / NETS_FILE).read_bytes()
    run(monkeypatch, str(config))
    assert (tmp_path / "out" / NETS_FILE).read_bytes() == before


def test_the_shipped_config_is_understood_and_a_mistake_in_it_is_named(config: Path) -> None:
    shipped = load_typed(
        PretrainingConfig, RECIPE.parent / "configs/pretrained-forecaster.yaml", []
    )
    assert {"ml-100k", "completejourney"} <= {log.label for log in available_logs(shipped)}
    config.write_text(config.read_text().replace("panels: 2", "panels: none"))
    with pytest.raises(ConfigError, match="panels is 'none'"):
        load_typed(PretrainingConfig, config, [])
