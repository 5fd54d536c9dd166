"""LoRA inside a model's layers: new adapters, more layers of one, and their files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

from llmrec.errors import TrainingError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


# The number of a layer in a module's name between dots.
LAYER_NUMBER = re.compile(r"\.(?:layers|block|h)\.(\d+)\.")


def add_lora(
    model: PreTrainedModel,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[str],
    layers: Sequence[int] | None = None,
) -> PeftModel:
    """Add a new LoRA adapter to a model's layers; nothing else of it is trained from then on.

    Returns
    -------
    PeftModel
        The wrapper for `save_adapter`; the model itself now holds the adapter.

    Raises
    ------
    TrainingError
        If the targets match no layer.
    """
    if getattr(model, "is_quantized", False):
        model = prepare_model_for_kbit_training(model)
    seq2seq = model.config.is_encoder_decoder
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        layers_to_transform=None if layers is None else list(layers),
        task_type="SEQ_2_SEQ_LM" if seq2seq else "CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return get_peft_model(model, config)
    except ValueError as cause:
        names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
        raise TrainingError(
            f"LoRA's targets {sorted(targets)} (layers {layers or 'all'}) match nothing in "
            f"{type(model).__name__}, whose modules are called {sorted(names)}"
        ) from cause


def add_lora_to_layers(adapted: PeftModel, layers: Sequence[int], *, rank: int, seed: int) -> None:
    """Add LoRA to more layers of an adapted model, of another rank and with the same scaling.

    ``layers`` must not have it already. Like peft's own, new matrices are float32 whatever the
    precision of the base model.
    """
    (config,) = adapted.peft_config.values()
    earlier = list(config.layers_to_transform)
    pattern = f"layers\\.({'|'.join(map(str, layers))})\\..*"
    config.rank_pattern = {pattern: rank}
    config.alpha_pattern = {pattern: config.lora_alpha * rank / config.r}
    config.layers_to_transform = list(layers)
    torch.manual_seed(seed)
    existing = set(dict(adapted.named_parameters()))
    adapted.base_model.inject_adapter(adapted.get_base_model(), "default")
    for name, values in adapted.named_parameters():
        if name not in existing and ".lora_" in name:
            values.data = values.data.float()
    config.layers_to_transform = sorted({*earlier, *layers})


def save_adapter(adapted: PeftModel, folder: Path, base_model: str) -> None:
    """Write adapter_model.safetensors and adapter_config.json, in the precision of the weights.

    ``base_model`` is the name of the base model, not its folder on this machine.
    """
    for config in adapted.peft_config.values():
        config.base_model_name_or_path = base_model
        if isinstance(config.target_modules, set):  # in another order in each process
            config.target_modules = sorted(config.target_modules)
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
