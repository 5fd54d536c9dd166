"""Hidden states by vLLM on a GPU: the first layers as a model of their own, with its pooler off."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from llmrec.data.embedded import cached_folder
from llmrec.errors import MissingExtraError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GPU_SHARE = 0.5  # of its memory that vLLM takes; the rest is for torch, which embeds and generates


class VllmReader:
    """A decoder's first layers as a pooling model of vLLM, see `StateReader`.

    They are written to the cache once, as a checkpoint. Prompts are given as embeddings: titles and
    pooled positions have no token of their own.

    Parameters
    ----------
    model, tokenizer
        A decoder of float32 weights, and its tokenizer.
    depth
        Layers; None: all.
    numbers
        "bfloat16", "float16" or "float32".
    fingerprint
        Of the model: what is cached is found by it.

    Raises
    ------
    MissingExtraError
        If vLLM is not installed.
    """

    batch_tokens = 65_536  # vLLM makes batches of its own from these

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        depth: int | None,
        numbers: str,
        fingerprint: str,
    ) -> None:
        try:
            from vllm import LLM, PoolingParams
            from vllm.config import PoolerConfig
        except ImportError as error:
            raise MissingExtraError(
                "backend 'vllm' needs vLLM, in an environment of its own with a GPU: "
                "pip install vllm"
            ) from error
        self.depth = depth
        self.precision = f"vllm {numbers}"
        self._dtype: torch.dtype = getattr(torch, numbers)
        # Without the activation the pooler gives a state as it is, not of length 1.
        self._raw = PoolingParams(use_activation=False)
        key = f"first-layers-{fingerprint}-{depth or 'all'}"
        folder = cached_folder(key, [], partial(save_first_layers, model, tokenizer, depth))
        self._llm = LLM(
            model=str(folder),
            runner="pooling",
            convert="embed",
            dtype=numbers,
            enable_prompt_embeds=True,
            gpu_memory_utilization=GPU_SHARE,
            pooler_config=PoolerConfig(seq_pooling_type="LAST", use_activation=False),
        )

    def __call__(self, prompts: Sequence[torch.Tensor]) -> torch.Tensor:
        """(n, d) float32 states, on the CPU, of n prompts embedded as (n_positions, d)."""
        inputs = [{"prompt_embeds": prompt.to(self._dtype)} for prompt in prompts]
        outputs = self._llm.encode(inputs, self._raw, pooling_task="embed", use_tqdm=False)
        return torch.stack([one.outputs.data for one in outputs]).float().cpu()


def save_first_layers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, depth: int | None, folder: Path
) -> None:
    """Write a decoder's first layers, LoRA merged into them, as a checkpoint with its tokenizer."""
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = depth or config.num_hidden_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    # A layer that LoRA was merged into is called base_layer, inside the one that adds LoRA.
    weights = {
        name.replace(".base_layer", ""): value
        for name, value in model.state_dict().items()
        if "lora_" not in name
    }
    first = type(model)(config)
    first.load_state_dict({name: weights[name] for name in first.state_dict()})
    first.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
