"""Checks of an adapter's folder before peft sees it: plain LoRA, of the rank that it has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from llmrec.data.json_values import list_entries
from llmrec.errors import ModelLoadError
from llmrec.language.folder_checks import (
    ADAPTER_CONFIG_FILE,
    DAMAGED,
    MAX_LAYERS,
    check_code,
    check_integer,
    check_patterns,
    read_config,
    refusal,
)

MAX_RANK = 1_024
MAX_ALPHA = 1e6
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
_OTHER_LORA = "train plain LoRA, as finetune/lora.py does, or merge it into its base model"
_COPIED_MODULES = ("embed_tokens", "lm_head", "shared", "wte", "embed_in", "embed_out")
# Values of other fields; those that are not here may stand in a config where they are off.
_ALLOWED: dict[str, Any] = {
    **dict.fromkeys(("base_model_name_or_path", "revision", "peft_version"), str),
    **dict.fromkeys(("peft_type", "task_type"), str),
    **dict.fromkeys(("inference_mode", "fan_in_fan_out", "lora_bias"), (True,)),
    **dict.fromkeys(("use_rslora", "use_dora", "ensure_weight_tying"), (True,)),
    "init_lora_weights": (True, "gaussian"),
    "bias": ("none", "all", "lora_only"),
    "megatron_core": ("megatron.core",),
    "qalora_group_size": (16,),
}


def check_adapter_folder(folder: Path) -> None:
    """Check an adapter's folder before it is loaded: plain LoRA of the rank that its weights have.

    Raises
    ------
    ModelLoadError
        If adapter_config.json names code, another kind of adapter, a pattern that could take long
        to match, or a size that cannot be; it names file and key.
    """
    path, weights = folder / ADAPTER_CONFIG_FILE, folder / ADAPTER_WEIGHTS_FILE
    for file in (weights, path):
        if not file.is_file():
            raise ModelLoadError(f"there is no {file.name} in it: {folder} is no adapter's folder")
    values = read_config(path)
    if (kind := values.get("peft_type")) != "LORA":
        reason = "it is a soft prompt or another kind; an adapter inside the layers is needed"
        raise refusal(path, "peft_type", kind, reason, _OTHER_LORA)
    for key, value in list_entries(values):
        check_code(path, key, value)
    for key, value in values.items():
        _check_field(path, key, value)
    _check_ranks(path, weights, values)


def _check_field(path: Path, key: str, value: Any) -> None:
    """Check one field: what plain LoRA needs, and nothing else that is switched on."""
    match key:
        case "r":
            check_integer(path, key, value, MAX_RANK, least=1)
        case "lora_alpha":
            _check_number(path, key, value, MAX_ALPHA)
        case "lora_dropout":
            _check_number(path, key, value, 1)
        case "rank_pattern" | "alpha_pattern":
            _check_pattern_values(path, key, value)
        case "target_modules" | "exclude_modules" | "layers_pattern":
            check_patterns(path, key, value)
        case "layers_to_transform":
            _check_layers(path, key, value)
        case "modules_to_save":
            if value and not (isinstance(value, list) and all(x in _COPIED_MODULES for x in value)):
                reason = f"only copies of {', '.join(_COPIED_MODULES)} are loaded"
                raise refusal(path, key, value, reason, _OTHER_LORA)
        case "auto_mapping":
            pass  # `check_code` has seen it
        case _:
            allowed = _ALLOWED.get(key, ())
            if value and not (isinstance(value, str) if allowed is str else value in allowed):
                raise refusal(path, key, value, "only plain LoRA is loaded", _OTHER_LORA)


def _check_layers(path: Path, key: str, value: Any) -> None:
    layers = value if isinstance(value, list) else [value]
    if len(layers) > MAX_LAYERS:
        raise refusal(path, key, value, f"{MAX_LAYERS} layers are the most", DAMAGED)
    for layer in layers:
        if layer is not None:
            check_integer(path, key, layer, MAX_LAYERS - 1)


def _check_ranks(path: Path, weights: Path, values: Mapping[str, Any]) -> None:
    """Refuse a rank that no matrix in the weights has: peft would make one of that size."""
    ranks = {"r": values.get("r", 8)} | dict(values.get("rank_pattern") or {})
    with safe_open(weights, framework="pt") as file:
        names = [name for name in file.keys() if ".lora_" in name and "_A" in name]  # noqa: SIM118
        shapes = [file.get_slice(name).get_shape() for name in names]
    stored = max((shape[0] for shape in shapes if math.prod(shape)), default=MAX_RANK)
    pattern, rank = max(ranks.items(), key=lambda item: item[1])
    if rank > stored:
        key = "r" if pattern == "r" else f"rank_pattern[{pattern[:60]!r}]"
        reason = f"the matrices in {weights.name} have rank {stored} at most"
        raise refusal(path, key, rank, reason, DAMAGED)


def _check_pattern_values(path: Path, key: str, value: Any) -> None:
    """Check the ranks or the alphas that patterns of layers have."""
    if not isinstance(value, dict | None):
        raise refusal(path, key, value, "it should hold a number for each pattern", DAMAGED)
    check_patterns(path, key, list(value or {}))
    for pattern, number in (value or {}).items():
        if key == "rank_pattern":
            check_integer(path, f"{key}[{pattern[:60]!r}]", number, MAX_RANK, least=1)
        else:
            _check_number(path, f"{key}[{pattern[:60]!r}]", number, MAX_ALPHA)


def _check_number(path: Path, key: str, value: Any, most: float) -> None:
    if type(value) not in (int, float) or not 0 <= value <= most:
        raise refusal(path, key, value, f"it should be a number from 0 to {most:,.0f}", DAMAGED)
