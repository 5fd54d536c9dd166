"""Merged adapters and other precisions: what would forecast otherwise is refused, not used."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from llmrec.errors import DataError, ModelLoadError
from llmrec.forecasters.calibration import Calibration
from llmrec.language.model import LanguageModel
from llmrec.training import merge
from tests.hostile.conftest import Count
from tests.language import conftest as models
from tests.language.test_adapters import save_adapter

llama, llama_folder = models.llama, models.llama_folder
MAX_CHANGE = 1e-3  # of a logit, as `merge_adapter` promises
PROMPTS = [f"Forecast: Drama {n}%, Comedy {100 - n}%. Next {n} films:" for n in range(0, 40, 5)]
FRESH = [f"To {n} Jan 1998: Sci-Fi & Fantasy {n}%." for n in range(1, 20)]
Draw = np.random.Generator


def amount(some: int, all_of_them: int) -> pytest.MarkDecorator:
    cases = [
        pytest.param(some, id="some"),
        pytest.param(all_of_them, id="all", marks=pytest.mark.hostile),
    ]
    return pytest.mark.parametrize("n", cases)


def logits(model: LanguageModel, prompts: list[str]) -> np.ndarray:
    n_tokens = model.model.get_output_embeddings().out_features
    return model.final_logits(prompts, np.arange(n_tokens))


@amount(3, 25)
def test_merged_and_unmerged_adapters_give_the_same_logits(
    n: int, llama: LanguageModel, llama_folder: Path, tmp_path: Path, count: Count
) -> None:
    rng, found = np.random.default_rng(0), list[str]()
    for case in range(n):
        options = {
            "r": int(rng.integers(1, 9)),
            "lora_alpha": int(rng.integers(1, 33)),
            "use_rslora": bool(rng.integers(2)),
            "target_modules": rng.choice(
                ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"], 3, replace=False
            ).tolist(),
        }
        adapter = save_adapter(tmp_path / f"{case}", llama, llama_folder, **options)
        apart, together = (
            LanguageModel.load(str(llama_folder), adapter=adapter, device="cpu", merge=is_merged)
            for is_merged in (False, True)
        )
        expected, out = logits(apart, FRESH), tmp_path / f"{case} merged"
        assert np.abs(expected - logits(llama, FRESH)).max() > 0.01
        change = merge.merge_adapter(str(llama_folder), adapter, out, PROMPTS)
        written = LanguageModel.load(str(out), device="cpu")
        changes = [np.abs(logits(one, FRESH) - expected).max() for one in (together, written)]
        if not max(change, *changes) <= MAX_CHANGE:
            found.append(f"{options}: {change:.3g}, {changes}")
    count("merged adapters", n, len(found))
    assert not found


def _spoil_merging(kind: int, rng: Draw) -> Callable[[Any], None]:
    """Give what merges a model's layers, and one of them wrongly."""
    right = merge._merge_layers

    def wrong(model: Any) -> None:
        layers = [layer for layer in model.modules() if hasattr(layer, "base_layer")]
        layer = layers[int(rng.integers(len(layers)))]
        (name,) = layer.scaling
        weight = layer.base_layer.weight.data
        if kind == 0:
            layer.scaling[name] *= float(rng.choice([0.0, 0.5, 0.9, 1.1, 2.0, -1.0, 100.0]))
        elif kind == 1:  # merged twice
            weight += layer.get_delta_weight(name)
        elif kind == 2:  # an adapter of somebody else
            torch.nn.init.normal_(layer.lora_B[name].weight)
        elif kind == 3:
            bad = (np.nan, np.inf, 1e30, 10.0)[int(rng.integers(4))]
            weight[0, int(rng.integers(weight.shape[1]))] = bad
        elif kind == 4:
            weight.copy_(weight.half().float() if rng.random() < 0.5 else weight.bfloat16().float())
        else:
            weight.copy_(weight.flip(int(rng.integers(2))))
        right(model)

    return wrong


def _spoil_writing(kind: int, rng: Draw) -> Callable[..., None]:
    """Give what writes a model, and one of its files wrongly."""
    right = PreTrainedModel.save_pretrained

    def wrong(model: Any, folder: Path, **options: Any) -> None:
        right(model, folder, **options)
        file = Path(folder) / "model.safetensors"
        tensors = load_file(file)
        names = sorted(tensors)
        name = names[int(rng.integers(len(names)))]
        if kind == 0:
            flat = tensors[name].view(-1)
            flat[int(rng.integers(len(flat)))] += float(rng.choice([1e-4, 0.5, np.nan]))
        elif kind == 1:
            tensors[name].zero_()
        elif kind == 2:
            first, second = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"
            tensors[first], tensors[second] = tensors[second], tensors[first]
        elif kind == 3:
            del tensors[name]
        elif kind == 4:
            tensors[name] = tensors[name].bfloat16()
        save_file(tensors, file, metadata={"format": "pt"})
        if kind == 5:
            file.write_bytes(file.read_bytes()[: int(rng.integers(9, file.stat().st_size))])

    return wrong


@amount(8, 60)
def test_a_merge_that_went_wrong_leaves_no_folder_or_one_that_is_right(
    n: int,
    llama: LanguageModel,
    llama_folder: Path,
    tmp_path: Path,
    count: Count,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng, found, n_refused = np.random.default_rng(1), list[str](), 0
    adapter = save_adapter(tmp_path / "adapter", llama, llama_folder)
    apart = LanguageModel.load(str(llama_folder), adapter=adapter, device="cpu", merge=False)
    expected = logits(apart, FRESH)
    for case in range(n):
        what, kind, out = ("merging", "writing")[case % 2], case // 2 % 6, tmp_path / f"out{case}"
        with monkeypatch.context() as patch:
            if what == "merging":
                patch.setattr(merge, "_merge_layers", _spoil_merging(kind, rng))
            else:
                patch.setattr(PreTrainedModel, "save_pretrained", _spoil_writing(kind, rng))
            try:
                merge.merge_adapter(str(llama_folder), adapter, out, PROMPTS)
            except ModelLoadError:
                n_refused += 1
                found += [f"{case}: {what} {kind} left a folder"] if out.exists() else []
                continue
        change = np.abs(logits(LanguageModel.load(str(out), device="cpu"), FRESH) - expected).max()
        found += [f"{case}: {what} {kind}: {change:.3g}"] if not change <= MAX_CHANGE else []
    count("merges that went wrong", n, len(found))
    assert not found
    assert n_refused >= 0.8 * n


NOT_NUMBERS = (None, True, "0.0001", [0.0001], {}, "nan")
TOO_LARGE = (0.00101, -0.00101, 1.0, -1.0, 1e300, float("inf"), -float("inf"), float("nan"))


def test_a_calibration_serves_no_precision_whose_loss_was_not_measured_to_be_the_same(
    tmp_path: Path, count: Count
) -> None:
    calibration = Calibration(0.5, np.zeros(2), np.zeros(2), model="abc", categories=("A", "B"))
    path, found, n = tmp_path / "calibration.json", list[str](), 0
    calibration.save(path)
    values = json.loads(path.read_text())
    names = ("abc openvino 8bit", "abc openvino 8bit ", "ABC openvino 8bit", "openvino 8bit", "")
    for measured in (*NOT_NUMBERS, *TOO_LARGE, 0.00099, 0):
        for name in names:
            path.write_text(json.dumps(values | {"equivalents": {name: measured}}))
            is_right = name == names[0] and not (measured in NOT_NUMBERS or measured in TOO_LARGE)
            n += 1
            try:
                is_used = Calibration.load(path, ("A", "B")).suits(names[0])
            except DataError:
                is_used = False
            found += [f"{name!r}: {measured!r}"] if is_used != is_right else []
    count("calibrations of other precisions", n, len(found))
    assert not found


def _readers() -> dict[str, Callable[[Any], Any]]:
    """Give what spoils (n, d) states that a backend read."""
    return {
        "zero": torch.zeros_like,
        "not a number": lambda states: states * torch.nan,
        "too large": lambda states: states * 1.2,
        "too small": lambda states: states * 0.85,
        "turned round": lambda states: states.flip(1),
        "of others": lambda states: states.roll(1, 1),
        "one infinite": lambda states: states.masked_fill(states == states.max(), torch.inf),
        "with noise": lambda states: states + 0.2 * torch.randn_like(states) * states.std(),
        "few bits": lambda states: (states / states.abs().max() * 2).round() / 2,
    }


def _quantizers() -> dict[str, Callable[[Any, Any], Any]]:
    """Give what makes weights of 8 bits wrongly, from the weights and what is right."""
    return {
        "scaled by 1.5": lambda right, weights: right(weights * 1.5),
        "signs lost": lambda right, weights: right(np.abs(weights)),
        "shifted by a row": lambda right, weights: right(np.roll(weights, 1, axis=0)),
        "shifted by a column": lambda right, weights: right(np.roll(weights, 1, axis=1)),
        "two bits": lambda right, weights: right(
            np.rint(weights / np.abs(weights).max() * 2) * np.abs(weights).max() / 2
        ),
        "zero": lambda right, weights: right(weights * 0),
        "one outlier": lambda right, weights: right(
            np.where(weights == weights.max(), 1e4, weights)
        ),
    }


@pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="OpenVINO is not installed: pip install 'llmrec[openvino]'",
)
@amount(1, 9)
def test_a_backend_that_reads_otherwise_than_torch_is_refused(
    n: int,
    llama: LanguageModel,
    llama_folder: Path,
    tmp_path: Path,
    count: Count,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from llmrec.language import openvino_states

    adapter = save_adapter(tmp_path / "adapter", llama, llama_folder)
    options: dict[str, Any] = {"adapter": adapter, "device": "cpu", "backend": "openvino"}
    read, quantize = openvino_states.OpenVinoReader.__call__, openvino_states._quantize
    torch.manual_seed(0)
    found, n_tried = [], 0
    for name, spoil in list(_readers().items())[:n]:
        for more in ({}, {"quantize": "8bit"}):
            with monkeypatch.context() as patch:
                patch.setattr(
                    openvino_states.OpenVinoReader,
                    "__call__",
                    lambda reader, prompts, spoil=spoil: spoil(read(reader, prompts)),
                )
                n_tried += 1
                found += _loads(name, llama_folder, options | more)
    for name, change in list(_quantizers().items())[:n]:
        with monkeypatch.context() as patch:
            patch.setattr(
                openvino_states,
                "_quantize",
                lambda weights, change=change: change(quantize, weights),
            )
            n_tried += 1
            found += _loads(name, llama_folder, {**options, "quantize": "8bit"})
    count("backends that read otherwise", n_tried, len(found))
    assert not found
    for more in ({}, {"quantize": "8bit"}):
        assert LanguageModel.load(str(llama_folder), **options, **more).reader is not None


def _loads(name: str, folder: Path, options: dict[str, Any]) -> list[str]:
    try:
        LanguageModel.load(str(folder), **options)
    except ModelLoadError as error:
        return [] if "away from torch's" in str(error) else [f"{name}: {error}"]
    return [f"{name} in {options.get('quantize')}"]
