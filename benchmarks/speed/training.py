"""How fast a training step is against bare matrix products, and what a read position costs.

The limit is the time that this machine needs for the products of a step alone, shapes and number
the same: each linear layer below the read depth, once forward and once back to its input. Both are
measured in turn in one run, on one thread. A read position of a timeline is compared with a
sequence of its own for each read position, in positions of the model.

Run: python -m benchmarks.speed.training --examples examples/ml-100k
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.harness.results import record_results
from llmrec.training.batches import TimelineBatches
from llmrec.training.config import load_config
from llmrec.training.dataset import load_examples
from llmrec.training.run import build_timeline_model, make_batches


def main() -> None:
    """Time training steps, and the products in them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="finetune/configs/smollm2-135m-ml-100k.yaml")
    parser.add_argument("--examples", "--pairs", type=Path, default=Path("examples/ml-100k"))
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    overrides = ["--line_share", "0", "--examples", str(arguments.examples)]
    config = load_config(arguments.config, overrides)
    manifest, parts = load_examples(arguments.examples)
    model, _, timeline_model = build_timeline_model(config, manifest)
    training, _ = make_batches(config, manifest, parts, model)
    trained = [parameter for parameter in timeline_model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    layers = model.model.get_decoder().layers[: config.depth]
    linear = [part for part in layers.modules() if type(part) is nn.Linear]
    shapes = [part.weight.shape for part in linear if part.weight.shape[0] > config.lora.rank]
    shapes = [shape for shape in shapes if min(shape) > config.lora.rank]

    def step(batch: dict[str, Any]) -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        timeline_model(**batch)["loss"].backward()
        optimizer.step()
        return time.perf_counter() - start

    ratios, rates = [], []
    batches = [make() for make in training.epoch(0)[: arguments.rounds + 1]]
    step(batches[0])  # the first one pays for what is set up once
    for batch in batches[1:]:
        prompts = batch["prompts"]
        positions = len(prompts) * max(map(len, prompts))
        products, seconds = _products(shapes, positions), step(batch)
        ratios.append(products / seconds)
        rates.append((batch["n_positions"] / seconds, len(batch["slots"].row) / seconds))
    keys: dict[str, object] = {
        "dataset": manifest.dataset,
        "split": "train",
        "model": "SmolLM2-135M",
    }
    keys |= {"low": None, "high": None, "n": arguments.rounds, "seeds": [0]}
    positions_per_s, read_positions_per_s = np.median(rates, axis=0)
    values = {
        "ratio to bare matrix products": float(np.median(ratios)),
        "positions_per_s": positions_per_s,
        "read_positions_per_s": read_positions_per_s,
        **_count_positions(training, manifest.n_slots),
    }
    record_results("speed/training", [keys | {"metric": k, "value": v} for k, v in values.items()])


def _count_positions(training: TimelineBatches, n_read_positions: int) -> dict[str, float]:
    """Count positions per read position: of timelines, and of one sequence for each."""
    separate = np.concatenate(
        [
            np.array([len(prompt) - back for back in backs])
            for prompt, backs in zip(training.prompts, training.back, strict=True)
        ]
    )
    shared = sum(len(prompt) for prompt in training.prompts)
    return {
        "positions per read position, timeline": shared / n_read_positions,
        "positions per read position, one sequence each": float(separate.mean()),
        "ratio of positions": float(separate.sum()) / shared,
    }


def _products(shapes: list[torch.Size], positions: int) -> float:
    """Seconds for x W' and y W of each (out, in) shape, x and y with so many rows."""
    total = 0.0
    for n_out, n_in in shapes:
        weight, x, y = torch.randn(n_out, n_in), torch.randn(positions, n_in), None
        start = time.perf_counter()
        y = x @ weight.T
        x = y @ weight
        total += time.perf_counter() - start
    return total


if __name__ == "__main__":
    main()
