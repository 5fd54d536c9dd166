"""Hidden states by OpenVINO: a decoder's first layers in float32, bfloat16 or weights of 8 bits."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from llmrec.errors import MissingExtraError, ModelLoadError
from llmrec.language.forward import truncated_decoder

try:
    import openvino
    from openvino import opset13 as ops
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
except ImportError as error:
    raise MissingExtraError(
        "backend 'openvino' needs OpenVINO: pip install 'llmrec[openvino]'"
    ) from error

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GROUP = 32  # weights, and values that they are multiplied by, that share a scale in 8 bits


class OpenVinoReader:
    """A decoder's first layers as a graph of OpenVINO on the CPU, see `StateReader`.

    It runs on as many threads as torch does when it is made.

    Parameters
    ----------
    model
        A decoder of float32 weights on the CPU.
    depth
        Layers; None: all.
    numbers
        "float32"; "bfloat16"; or "8bit": weights are whole numbers, with a scale for every `GROUP`,
        and so are the values that they are multiplied by where the processor multiplies such.

    Raises
    ------
    ModelLoadError
        If the model cannot be converted, or the processor does not compute in these numbers.
    """

    batch_tokens = 512

    def __init__(self, model: PreTrainedModel, depth: int | None, numbers: str) -> None:
        core = openvino.Core()
        if numbers == "bfloat16" and "BF16" not in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise ModelLoadError(
                "this processor has no instructions for bfloat16: give quantize='8bit'"
            )
        self.depth = depth
        self.precision = "" if numbers == "float32" else f"openvino {numbers}"
        graph = _convert(model, depth)
        if numbers == "8bit":
            _quantize_weights(graph)
        options = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "bf16" if numbers == "bfloat16" else "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if numbers == "8bit" else 0,
        }
        self._compiled = core.compile_model(graph, "CPU", options)
        self._lock = Lock()  # a compiled model answers one request at a time

    def __call__(self, prompts: Sequence[torch.Tensor]) -> torch.Tensor:
        """(n, d) float32 states, on the CPU, of n prompts embedded as (n_positions, d)."""
        embedded = pad_sequence(list(prompts), batch_first=True).numpy()
        last = np.array([len(prompt) - 1 for prompt in prompts])
        with self._lock:
            states = np.array(self._compiled([embedded, last])[0])
        return torch.from_numpy(states)


class _ReadPosition(torch.nn.Module):
    """A module that treats each position alone, asked for one of each row: (n, 1, d)."""

    index: torch.Tensor  # (n, 1, d), set before each pass

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.module(states.gather(1, self.index))
        return found


class _ReadStates(torch.nn.Module):
    """What is converted: (n, d) states at the read positions of (n, width, d) embedded prompts.

    Prompts are padded on the right: no position is masked from all others then, which would give
    nan here, and causality keeps a prompt from its padding.
    """

    def __init__(self, model: PreTrainedModel, depth: int | None) -> None:
        super().__init__()
        self._asked: list[_ReadPosition] = []
        self.decoder = truncated_decoder(model, depth, wrap_mlp=self._wrap)

    def _wrap(self, mlp: torch.nn.Module) -> torch.nn.Module:
        self._asked.append(_ReadPosition(mlp))
        return self._asked[-1]

    def forward(self, embedded: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        index = last[:, None, None].expand(-1, 1, embedded.shape[2])
        for module in self._asked:
            module.index = index
        ones = torch.ones_like(embedded[:, :, 0], dtype=torch.long)
        positions = ones.cumsum(dim=1) - 1
        inputs = {"inputs_embeds": embedded, "attention_mask": ones, "position_ids": positions}
        states = self.decoder(**inputs, use_cache=False).last_hidden_state
        found: torch.Tensor = states.gather(1, index)[:, 0]
        return found


def _convert(model: PreTrainedModel, depth: int | None) -> Any:
    """Convert a decoder's first layers to a graph for batches of any size.

    `openvino.convert_model` does the same, and tells its makers over the network that it did.
    """
    width = model.get_input_embeddings().weight.shape[1]
    example = torch.zeros(2, 3, width), torch.tensor([2, 1])
    frontend = FrontEndManager().load_by_framework("pytorch")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of branches that are the same for every batch
            module = _ReadStates(model, depth).eval()
            traced = torch.jit.trace(module, example, check_trace=False)
            decoder = TorchScriptPythonDecoder(traced, example_input=example)
            return frontend.convert(frontend.load(decoder))
    except Exception as error:  # of whatever kind the model's code or the frontend raises
        raise ModelLoadError(
            f"OpenVINO cannot convert this model ({str(error).strip():.200}): load it with "
            "backend='torch'"
        ) from error


def _quantize_weights(graph: Any) -> None:
    """Replace each layer's weights w by q s, with q in -127..127 and a scale s for `GROUP` of w.

    The scale is half precision. It is that of the largest weight: w = max |w| is q = 127.
    """
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "MatMul" or not node.get_attributes()["transpose_b"]:
            continue
        source = node.input_value(1).get_node()
        if source.get_type_name() == "Constant" and len(source.data.shape) == 2:
            node.input(1).replace_source_output(_quantize(source.data).output(0))


def _quantize(weights: Any) -> Any:
    """Give the graph of (n_out, n_in) weights in 8 bits; a row is one group if n_in is uneven."""
    n_out, n_in = weights.shape
    groups = weights.reshape(n_out, -1, GROUP if n_in % GROUP == 0 else n_in)
    scales = np.abs(groups).max(axis=2, keepdims=True) / 127
    # Of the smallest normal number on: a smaller scale would lose its digits.
    scales = np.maximum(scales, np.finfo(np.float16).tiny).astype(np.float16)
    whole = np.clip(np.rint(groups / scales.astype(np.float32)), -127, 127).astype(np.int8)
    values = ops.multiply(ops.convert(ops.constant(whole), np.float16), ops.constant(scales))
    flat = ops.reshape(values, ops.constant(np.array([n_out, n_in])), special_zero=False)
    return ops.convert(flat, np.float32)
