"""The recipe is run whole, as a user would, on logs of a few people."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmrec import DataError, load_dataset
from llmrec.data.splits import split_windows
from llmrec.language.codec import codec_for
from llmrec.language.heads import CategoryHead, Verbalizer
from llmrec.language.model import LanguageModel
from llmrec.training.config import TrainingConfig
from llmrec.training.pretrain import examples_for
from tests import worlds
from tests.language.tiny_models import save_t5

FINETUNE = Path(__file__).parents[2] / "finetune"


def write_log(path: Path, seed: int, prefix: str) -> str:
    """Write a log of 28-day periods; the names of its categories start with ``prefix``."""
    events = worlds.log(12, 7, seed=seed)
    frame = pd.DataFrame(
        {
            "user_id": events.user_ids[events.user_idx],
            "item_id": events.item_ids[events.item_idx],
            "timestamp": worlds.START + 4 * (events.timestamp - worlds.START),
            "title": [f"Title {item}" for item in events.item_idx],
            "categories": [f"{prefix} {worlds.CATEGORIES[item % 5]}" for item in events.item_idx],
        }
    )
    frame.to_csv(path, index=False)
    return str(path)


def run(monkeypatch: pytest.MonkeyPatch, *flags: str) -> dict[str, object]:
    recipe = str(FINETUNE / "pretrain.py")
    monkeypatch.setattr(sys, "argv", [recipe, str(FINETUNE / "configs/t5-tiny.yaml"), *flags])
    return runpy.run_path(recipe, run_name="__main__")


@pytest.mark.parametrize(("new", "width"), [("new", 128), ("new-decoder", 192)])
def test_a_new_model_is_trained_on_two_logs_and_scores_generates_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: str, width: int
) -> None:
    logs = [
        write_log(tmp_path / f"log{n}.csv", n, prefix) for n, prefix in enumerate(("Old", "New"))
    ]
    flags = ["--data", " ".join(logs), "--examples", str(tmp_path / "examples")]
    flags += ["--out", str(tmp_path / "out"), "--model", new]
    first = run(monkeypatch, *flags)
    metrics = json.loads((tmp_path / "out/model/pretraining.json").read_text())
    assert metrics["log_loss"] < metrics["counting"]

    model = LanguageModel.load(str(tmp_path / "out/model"), device="cpu")
    model.category_head = CategoryHead.load(tmp_path / "out/model", width)
    dataset = load_dataset(logs[0])
    codec = codec_for(dataset, model, template="forecast-v3", budget=60)
    histories = [window.history for window in split_windows(dataset)["validation"]][:3]
    scores = model.score_categories(
        [codec.prompt(history) for history in histories], Verbalizer(codec.labels, model.encode)
    )
    assert scores.shape == (3, 5)
    assert np.abs(scores).max() > 0
    (line,) = model.generate(
        [codec.completion_prompt(histories[0])], constrain=codec.line.grammar()
    )
    assert codec.line.parse(line.text).category_weights.shape == (5,)

    again = run(monkeypatch, *flags)  # the run is finished, and nothing changes
    assert again["history"] == first["history"]


def test_examples_of_a_log_that_was_read_in_another_way_are_refused(tmp_path: Path) -> None:
    log, folder = write_log(tmp_path / "log.csv", 0, "Old"), str(tmp_path / "examples")
    config = TrainingConfig(examples=folder, out="out", budget=60, noun="books")
    first, _ = examples_for(config, log)
    assert first.reading == {"noun": "books"}
    again, _ = examples_for(config, log)
    assert again == first
    with pytest.raises(DataError, match=r"'noun': 'books'.* asks for .*\{\}.*delete the folder"):
        examples_for(config.model_copy(update={"noun": None}), log)


def test_an_existing_model_is_trained_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, model = write_log(tmp_path / "log.csv", 0, "Old"), str(save_t5(tmp_path / "t5"))
    flags = [
        "--data",
        log,
        "--examples",
        str(tmp_path / "examples"),
        "--out",
        str(tmp_path / "out"),
    ]
    run(monkeypatch, *flags, "--model", model, "--epochs", "1")
    before = LanguageModel.load(model, device="cpu")
    after = LanguageModel.load(str(tmp_path / "out/model"), device="cpu")
    assert after.encode([" Old Drama 31%"]) == before.encode([" Old Drama 31%"])
    assert after.fingerprint != before.fingerprint
