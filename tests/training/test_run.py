"""Lines are learned above the layers that score categories: scores keep their bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from llmrec.data.splits import rolling_training_windows, split_windows
from llmrec.language.model import LanguageModel
from llmrec.training.batches import LineDataset, TimelineBatches
from llmrec.training.config import LineTrainingConfig, TrainingConfig, generation_config
from llmrec.training.dataset import load_examples, save_examples
from llmrec.training.loop import train
from llmrec.training.lora import add_lora, add_lora_to_layers, save_adapter
from llmrec.training.objective import LineModel, TimelineModel
from llmrec.training.run import add_line_layers, cast_to_float16, check_layers, line_validation
from llmrec.training.typed_config import ConfigError
from tests.language.tiny_models import save_llama, save_t5
from tests.training.tiny_timelines import PRIOR, make_codec, make_dataset, make_timeline_model

DATA = make_dataset()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("llama")
    save_llama(path, num_hidden_layers=4, max_position_embeddings=1024)
    people = rolling_training_windows(DATA)
    save_examples(
        path / "examples", DATA, make_codec(DATA), PRIOR, people, split_windows(DATA)["validation"]
    )
    return path


def config(**changes: Any) -> TrainingConfig:
    values = {"depth": 2, "epochs": 1.0, "batch_positions": 300, "warmup_steps": 0, "out": "x"}
    lines = LineTrainingConfig(epochs=2.0, rate=1e-2, rank=2, layers="upper 2")
    return TrainingConfig(**values | {"generation": lines, "device": "cpu", **changes})


def build_parts(folder: Path) -> tuple[LanguageModel, PeftModel, TimelineModel]:
    """Build a model with random LoRA in the layers below 2, and a timeline model of that depth."""
    model = LanguageModel.load(str(folder), device="cpu")
    torch.manual_seed(5)
    targets = ["q_proj", "v_proj"]
    adapted = add_lora(model.model, rank=4, alpha=8, dropout=0.0, targets=targets, layers=[0, 1])
    for name, values in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(values, std=0.2)
    return model, adapted, make_timeline_model(model, make_codec(DATA), depth=2)


def load_timelines(folder: Path, model: LanguageModel, part: str = "train") -> TimelineBatches:
    return TimelineBatches(load_examples(folder / "examples")[1][part], model, batch_positions=300)


def train_lines(
    folder: Path, out: Path
) -> tuple[LanguageModel, PeftModel, TimelineModel, LineModel]:
    model, adapted, timeline_model = build_parts(folder)
    line_model = add_line_layers(config(), adapted, timeline_model)
    held_out = LineDataset(load_timelines(folder, model, "validation"), 3)
    lines = LineDataset(load_timelines(folder, model))
    validate = line_validation(line_model, held_out)
    metrics = train(line_model, lines, validate, generation_config(config()), out).metrics
    assert metrics["skill"] == 1 - metrics["log_loss"] / metrics["untrained"] > 0
    return model, adapted, timeline_model, line_model


def test_training_lines_leaves_states_the_same_to_the_last_bit_and_makes_lines_likelier(
    folder: Path, tmp_path: Path
) -> None:
    before, _, timeline_model = build_parts(folder)
    batch = LineDataset(load_timelines(folder, before)).epoch(0)[0]()
    prompts = load_timelines(folder, before).prompts[:4]
    with torch.inference_mode():
        states = before.final_states([make_codec(DATA).prompt(h) for h in _histories()], 2)
        loss = float(timeline_model.line_loss(batch["requests"], batch["lines"]))
    after, _, timeline_model, _ = train_lines(folder, tmp_path)
    assert load_timelines(folder, after).prompts[:4] == prompts
    with torch.inference_mode():
        again = after.final_states([make_codec(DATA).prompt(h) for h in _histories()], 2)
        assert torch.equal(states, again)
        assert float(timeline_model.line_loss(batch["requests"], batch["lines"])) < loss


def _histories() -> list[Any]:
    return [window.history for window in split_windows(DATA)["validation"]]


def test_one_adapter_holds_both_and_loads_like_any(folder: Path, tmp_path: Path) -> None:
    model, adapted, _, _ = train_lines(folder, tmp_path / "run")
    save_adapter(adapted, tmp_path / "adapter", "llama")
    stored = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert stored["target_modules"] == sorted(stored["target_modules"])  # not as hashes order them
    assert len(stored["target_modules"]) > 1
    loaded = LanguageModel.load(
        str(folder), adapter=tmp_path / "adapter", device="cpu", merge=False
    )
    ids = torch.arange(3, 40)[None]
    with torch.inference_mode():
        expected = model.model(input_ids=ids).logits
        assert torch.equal(loaded.model(input_ids=ids).logits, expected)
    ranks = {
        n.split("layers.")[1][0]: v.shape[0]
        for n, v in loaded.model.named_parameters()
        if "lora_A" in n
    }
    assert ranks == {"0": 4, "1": 4, "2": 2, "3": 2}


def test_parameters_for_lines_take_half_of_the_bytes_and_states_keep_their_bits(
    folder: Path, tmp_path: Path
) -> None:
    model, adapted, _, line_model = train_lines(folder, tmp_path / "run")
    ids, prompts = torch.arange(3, 40)[None], [make_codec(DATA).prompt(h) for h in _histories()]
    with torch.inference_mode():
        logits, states = model.model(input_ids=ids).logits, model.final_states(prompts, 2)
    cast_to_float16(line_model)
    save_adapter(adapted, tmp_path / "adapter", "llama")
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    halved = {
        name.split("layers.")[1][0] for name, v in tensors.items() if v.dtype == torch.float16
    }
    assert halved == {"2", "3"}
    loaded = LanguageModel.load(
        str(folder), adapter=tmp_path / "adapter", device="cpu", merge=False
    )
    assert {values.dtype for values in loaded.model.parameters()} == {torch.float32}
    with torch.inference_mode():
        assert torch.equal(loaded.final_states(prompts, 2), states)
        torch.testing.assert_close(loaded.model(input_ids=ids).logits, logits, rtol=0, atol=1e-3)


def test_every_line_is_in_an_epoch_once_with_its_own_request(folder: Path) -> None:
    model, _, _ = build_parts(folder)
    timelines = load_timelines(folder, model)
    for epoch in range(3):
        batches = [batch() for batch in LineDataset(timelines).epoch(epoch)]
        pairs = [pair for b in batches for pair in zip(b["requests"], b["lines"], strict=True)]
        assert sorted(map(str, pairs)) == sorted(
            map(str, zip(timelines.requests, timelines.lines, strict=True))
        )
        assert [batch() for batch in LineDataset(timelines).epoch(epoch)] == batches
        for batch in batches:
            assert len(batch["lines"]) == 1 or batch["n_positions"] <= timelines.batch_positions


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"depth": None}, "begin with layer 2, and depth is None"),
        ({"depth": 3}, "begin with layer 2, and depth is 3"),
        ({"generation": LineTrainingConfig(epochs=1.0, layers="upper 9")}, "has 4 layers"),
    ],
)
def test_layers_for_lines_that_score_categories_or_are_missing_are_refused(
    folder: Path, changes: dict[str, Any], reason: str
) -> None:
    model = LanguageModel.load(str(folder), device="cpu")
    check_layers(config(), model.model)
    with pytest.raises(ConfigError, match=reason):
        check_layers(config(**changes), model.model)


@pytest.mark.parametrize(
    "changes", [{"generation": LineTrainingConfig(), "depth": 2}, {"depth": None}]
)
def test_an_encoder_decoder_has_no_depth_and_no_run_for_lines_alone(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = LanguageModel.load(str(save_t5(tmp_path)), device="cpu").model
    with pytest.raises(ConfigError, match="for decoders"):
        check_layers(config(**changes), model)
    check_layers(config(depth=None, generation=LineTrainingConfig()), model)


def test_a_run_for_lines_that_was_killed_ends_like_one_that_was_not(
    folder: Path, tmp_path: Path
) -> None:
    def run(out: Path, steps: int = 10**9) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        model, adapted, timeline_model = build_parts(folder)
        line_model = add_line_layers(config(), adapted, timeline_model)
        held_out = LineDataset(load_timelines(folder, model, "validation"), 3)
        batches = InterruptedBatches(LineDataset(load_timelines(folder, model)), steps)
        validate = line_validation(line_model, held_out)
        often = generation_config(config(save_every=2, evaluate_every=2))
        metrics = train(line_model, batches, validate, often, out).metrics
        return metrics, {n: v.clone() for n, v in adapted.named_parameters() if "lora" in n}

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", steps=5)
    metrics, values = run(tmp_path / "killed")
    expected, whole = run(tmp_path / "whole")
    assert metrics == expected
    assert all(torch.equal(values[name], whole[name]) for name in whole)


class InterruptedBatches:
    """Batches that raise KeyboardInterrupt after ``steps`` of them."""

    def __init__(self, batches: LineDataset, steps: int) -> None:
        self.batches, self.left = batches, steps

    def epoch(self, n: int) -> list[Callable[[], dict[str, Any]]]:
        return [partial(self._make, batch) for batch in self.batches.epoch(n)]

    def _make(self, batch: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return batch()


def test_parameters_added_to_a_bfloat16_model_are_float32_like_those_before(folder: Path) -> None:
    model = LanguageModel.load(str(folder), device="cpu", dtype="bfloat16")
    adapted = add_lora(model.model, rank=4, alpha=8, dropout=0.0, targets=["q_proj"], layers=[0, 1])
    add_lora_to_layers(adapted, [2, 3], rank=2, seed=0)
    parameters = {name: values for name, values in adapted.named_parameters() if "lora" in name}
    assert len(parameters) == 8
    assert {values.dtype for values in parameters.values()} == {torch.float32}
