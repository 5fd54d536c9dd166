"""How fast a reading is against plain forward passes of the same model and length.

"plain" computes the logits of every position, "plain, last logits" of the last one only, as a
reading does. Rates are paired, in turn in one run, on one thread.

Run: python -m benchmarks.speed.scoring
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.harness.results import record
from llmrec.data.periods import History
from llmrec.data.readers import load_dataset
from llmrec.data.splits import sample_windows, split_windows
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.llm import LLMForecaster
from llmrec.language.codec import codec_for
from llmrec.language.model import LanguageModel


def main() -> None:
    """Time reading real histories, prompt writing included, and plain forwards of equal length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = LanguageModel.load(arguments.model)
    dataset = load_dataset("completejourney")
    codec = codec_for(dataset, model, budget=300)
    reader = LLMForecaster(model, codec, DecayedDirichlet())
    histories = [w.history for w in sample_windows(split_windows(dataset)["validation"], 200)]
    lengths = [model.count_tokens(codec.prompt(history)) for history in histories]
    near = np.argsort(np.abs(np.array(lengths) - 290), kind="stable")[:32]
    reader.category_scores(histories[:2])  # the first pass pays for what is set up once
    rows = []
    for n in (1, 32):
        chosen = [histories[i] for i in near[:n]]
        tokens = [lengths[i] for i in near[:n]]
        block = torch.randint(10, 1_000, (min(n, 8), round(float(np.mean(tokens)))))

        def plain(block: torch.Tensor = block, n: int = n, **options: int) -> int:
            with torch.inference_mode():
                for _ in range(-(-n // len(block))):
                    model.model(input_ids=block, use_cache=False, **options)
            return int(block.numel()) * -(-n // len(block))

        def read(chosen: list[History] = chosen, tokens: list[int] = tokens) -> int:
            reader.category_scores(chosen)
            return sum(tokens)

        rows += _paired(n, read, plain, lambda: plain(logits_to_keep=1), arguments.rounds)
    record("reading_speed", rows)


def _paired(
    n: int,
    read: Callable[[], int],
    plain: Callable[[], int],
    lean: Callable[[], int],
    rounds: int,
) -> list[dict[str, object]]:
    works = (read, plain, lean)
    rates = np.array([[_rate(work) for work in works] for _ in range(rounds)])
    shown = {"dataset": "completejourney", "split": "validation", "n": rounds, "seeds": [0]}
    shown |= {"model": f"batch of {n}", "low": None, "high": None}
    values = {
        "ratio to plain": np.median(rates[:, 0] / rates[:, 1]),
        "ratio to plain, last logits": np.median(rates[:, 0] / rates[:, 2]),
        "reading_tokens_per_s": np.median(rates[:, 0]),
        "plain_tokens_per_s": np.median(rates[:, 1]),
        "plain, last logits, tokens_per_s": np.median(rates[:, 2]),
    }
    return [shown | {"metric": metric, "value": value} for metric, value in values.items()]


def _rate(work: Callable[[], int]) -> float:
    start = time.perf_counter()
    tokens = work()
    return tokens / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
