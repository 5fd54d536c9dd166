"""Lines are learned above the layers that are read: a reading keeps its bytes."""

from __future__ import annotations

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
from llmrec.language.pretrained import add_lora, add_lora_to_layers, save_adapter
from llmrec.training.batches import LineDataset, TimelineBatches
from llmrec.training.config import ConfigError, LinesConfig, TrainingConfig, generation_config
from llmrec.training.dataset import load_examples, save_examples
from llmrec.training.loop import train
from llmrec.training.objective import LineModel, TimelineModel
from llmrec.training.run import add_line_layers, cast_to_float16, check_layers, line_validation
from tests.language.tiny_models import save_llama, save_t5
from tests.training.small import PRIOR, codec_of, dataset, reader_of

DATA = dataset()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("llama")
    save_llama(found, num_hidden_layers=4, max_position_embeddings=1024)
    people = rolling_training_windows(DATA)
    save_examples(
        found / "pairs", DATA, codec_of(DATA), PRIOR, people, split_windows(DATA)["validation"]
    )
    return found


def config(**changes: Any) -> TrainingConfig:
    values = {"depth": 2, "epochs": 1.0, "batch_positions": 300, "warmup_steps": 0, "out": "x"}
    lines = LinesConfig(epochs=2.0, rate=1e-2, rank=2, layers="upper 2")
    return TrainingConfig(**values | {"lines": lines, "device": "cpu", **changes})


def adapted(folder: Path) -> tuple[LanguageModel, PeftModel, TimelineModel]:
    """Give a model with LoRA in the layers below 2, a reader of them, and all of it in use."""
    model = LanguageModel.load(str(folder), device="cpu")
    torch.manual_seed(5)
    targets = ["q_proj", "v_proj"]
    inside = add_lora(model.model, rank=4, alpha=8, dropout=0.0, targets=targets, layers=[0, 1])
    for name, values in inside.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(values, std=0.2)
    return model, inside, reader_of(model, codec_of(DATA), depth=2)


def examples(folder: Path, model: LanguageModel, part: str = "train") -> TimelineBatches:
    return TimelineBatches(load_examples(folder / "pairs")[1][part], model, batch_positions=300)


def taught(folder: Path, out: Path) -> tuple[LanguageModel, PeftModel, TimelineModel, LineModel]:
    model, inside, reader = adapted(folder)
    writer = add_line_layers(config(), inside, reader)
    held_out = LineDataset(examples(folder, model, "validation"), 3)
    lines = LineDataset(examples(folder, model))
    history = train(
        writer, lines, line_validation(writer, held_out), generation_config(config()), out
    )
    metrics = history.metrics
    assert metrics["skill"] == 1 - metrics["log_loss"] / metrics["untrained"] > 0
    return model, inside, reader, writer


def test_readings_stay_as_they_were_to_the_last_bit_and_lines_get_likelier(
    folder: Path, tmp_path: Path
) -> None:
    before, _, reader = adapted(folder)
    batch = LineDataset(examples(folder, before)).epoch(0)[0]()
    prompts = examples(folder, before).prompts[:4]
    with torch.inference_mode():
        found = before.final_states([codec_of(DATA).prompt(h) for h in _people()], 2)
        loss = float(reader.line_loss(batch["requests"], batch["lines"]))
    after, _, reader, _ = taught(folder, tmp_path)
    assert examples(folder, after).prompts[:4] == prompts
    with torch.inference_mode():
        again = after.final_states([codec_of(DATA).prompt(h) for h in _people()], 2)
        assert torch.equal(found, again)
        assert float(reader.line_loss(batch["requests"], batch["lines"])) < loss


def _people() -> list[Any]:
    return [window.history for window in split_windows(DATA)["validation"]]


def test_one_adapter_holds_both_and_loads_like_any(folder: Path, tmp_path: Path) -> None:
    model, inside, _, _ = taught(folder, tmp_path / "run")
    save_adapter(inside, tmp_path / "adapter", "llama")
    loaded = LanguageModel.load(str(folder), adapter=tmp_path / "adapter", device="cpu")
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


def test_what_learned_lines_takes_half_of_the_bytes_and_readings_keep_their_bits(
    folder: Path, tmp_path: Path
) -> None:
    model, inside, _, writer = taught(folder, tmp_path / "run")
    ids, prompts = torch.arange(3, 40)[None], [codec_of(DATA).prompt(h) for h in _people()]
    with torch.inference_mode():
        logits, states = model.model(input_ids=ids).logits, model.final_states(prompts, 2)
    cast_to_float16(writer)
    save_adapter(inside, tmp_path / "adapter", "llama")
    kept = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    halved = {name.split("layers.")[1][0] for name, v in kept.items() if v.dtype == torch.float16}
    assert halved == {"2", "3"}
    loaded = LanguageModel.load(str(folder), adapter=tmp_path / "adapter", device="cpu")
    assert {values.dtype for values in loaded.model.parameters()} == {torch.float32}
    with torch.inference_mode():
        assert torch.equal(loaded.final_states(prompts, 2), states)
        torch.testing.assert_close(loaded.model(input_ids=ids).logits, logits, rtol=0, atol=1e-3)


def test_every_line_comes_once_an_epoch_with_its_own_request(folder: Path) -> None:
    model, _, _ = adapted(folder)
    found = examples(folder, model)
    for epoch in range(3):
        batches = [batch() for batch in LineDataset(found).epoch(epoch)]
        pairs = [pair for b in batches for pair in zip(b["requests"], b["lines"], strict=True)]
        assert sorted(map(str, pairs)) == sorted(
            map(str, zip(found.requests, found.lines, strict=True))
        )
        assert [batch() for batch in LineDataset(found).epoch(epoch)] == batches
        for batch in batches:
            assert len(batch["lines"]) == 1 or batch["n_positions"] <= found.batch_positions


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"depth": None}, "begin with layer 2, and depth is None"),
        ({"depth": 3}, "begin with layer 2, and depth is 3"),
        ({"lines": LinesConfig(epochs=1.0, layers="upper 9")}, "the model has 4 layers"),
    ],
)
def test_layers_that_are_read_through_or_absent_are_refused(
    folder: Path, changes: dict[str, Any], told: str
) -> None:
    model = LanguageModel.load(str(folder), device="cpu")
    check_layers(config(), model.model)
    with pytest.raises(ConfigError, match=told):
        check_layers(config(**changes), model.model)


@pytest.mark.parametrize("changes", [{"lines": LinesConfig(), "depth": 2}, {"depth": None}])
def test_an_encoder_decoder_has_no_depth_and_no_lines_of_their_own(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    model = LanguageModel.load(str(save_t5(tmp_path)), device="cpu").model
    with pytest.raises(ConfigError, match="for decoders"):
        check_layers(config(**changes), model)
    check_layers(config(depth=None, generation=LinesConfig()), model)


def test_a_run_that_was_killed_while_it_learned_lines_ends_like_one_that_was_not(
    folder: Path, tmp_path: Path
) -> None:
    def run(out: Path, steps: int = 10**9) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
        model, inside, reader = adapted(folder)
        writer = add_line_layers(config(), inside, reader)
        judged = line_validation(writer, LineDataset(examples(folder, model, "validation"), 3))
        setting = generation_config(config(save_every=2, evaluate_every=2))
        metrics = train(
            writer, Dying(LineDataset(examples(folder, model)), steps), judged, setting, out
        )
        return metrics.metrics, {n: v.clone() for n, v in inside.named_parameters() if "lora" in n}

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", steps=5)
    found, values = run(tmp_path / "killed")
    expected, whole = run(tmp_path / "whole")
    assert found == expected
    assert all(torch.equal(values[name], whole[name]) for name in whole)


class Dying:
    """Batches that interrupt whoever asks for more of them than ``steps``."""

    def __init__(self, batches: LineDataset, steps: int) -> None:
        self.batches, self.left = batches, steps

    def epoch(self, n: int) -> list[Callable[[], dict[str, Any]]]:
        return [partial(self._made, batch) for batch in self.batches.epoch(n)]

    def _made(self, batch: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return batch()


def test_what_is_added_is_float32_in_a_bfloat16_model_like_what_was_there(folder: Path) -> None:
    model = LanguageModel.load(str(folder), device="cpu", dtype="bfloat16")
    inside = add_lora(model.model, rank=4, alpha=8, dropout=0.0, targets=["q_proj"], layers=[0, 1])
    add_lora_to_layers(inside, [2, 3], rank=2, seed=0)
    found = {name: values for name, values in inside.named_parameters() if "lora" in name}
    assert len(found) == 8
    assert {values.dtype for values in found.values()} == {torch.float32}
