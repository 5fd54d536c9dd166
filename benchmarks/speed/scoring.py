"""How fast category scores are against plain forward passes of the same model and length.

"plain" computes the logits of every position, "plain, last logits" of the last one only, as
scoring does. Rates are paired, in turn in one run, on one thread.

Run: python -m benchmarks.speed.scoring
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.harness.results import record_results
from llmrec.data.periods import History
from llmrec.data.readers import load_dataset
from llmrec.data.splits import sample_windows, split_windows
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.llm import LLMForecaster
from llmrec.language.codec import codec_for
from llmrec.language.model import LanguageModel


def main() -> None:
    """Time the scores of real histories, prompts included, and plain passes of equal length."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = LanguageModel.load(arguments.model)
    dataset = load_dataset("completejourney")
    codec = codec_for(dataset, model, budget=300)
    forecaster = LLMForecaster(model, codec, DecayedDirichlet())
    histories = [w.history for w in sample_windows(split_windows(dataset)["validation"], 200)]
    lengths = [model.count_tokens(codec.prompt(history)) for history in histories]
    closest = np.argsort(np.abs(np.array(lengths) - 290), kind="stable")[:32]
    forecaster.category_scores(histories[:2])  # the first pass pays for what is set up once
    rows = []
    for n in (1, 32):
        chosen = [histories[i] for i in closest[:n]]
        tokens = [lengths[i] for i in closest[:n]]
        block = torch.randint(10, 1_000, (min(n, 8), round(float(np.mean(tokens)))))

        def plain(block: torch.Tensor = block, n: int = n, **options: int) -> int:
            with torch.inference_mode():
                for _ in range(-(-n // len(block))):
                    model.model(input_ids=block, use_cache=False, **options)
            return int(block.numel()) * -(-n // len(block))

        def score(chosen: list[History] = chosen, tokens: list[int] = tokens) -> int:
            forecaster.category_scores(chosen)
            return sum(tokens)

        rows += _paired_rows(n, score, plain, lambda: plain(logits_to_keep=1), arguments.rounds)
    record_results("speed/scoring", rows)


def _paired_rows(
    n: int,
    score: Callable[[], int],
    plain: Callable[[], int],
    plain_last: Callable[[], int],
    rounds: int,
) -> list[dict[str, object]]:
    passes = (score, plain, plain_last)
    rates = np.array([[_rate(run) for run in passes] for _ in range(rounds)])
    keys = {"dataset": "completejourney", "split": "validation", "n": rounds, "seeds": [0]}
    keys |= {"model": f"batch of {n}", "low": None, "high": None}
    values = {
        "ratio to plain": np.median(rates[:, 0] / rates[:, 1]),
        "ratio to plain, last logits": np.median(rates[:, 0] / rates[:, 2]),
        "scoring_tokens_per_s": np.median(rates[:, 0]),
        "plain_tokens_per_s": np.median(rates[:, 1]),
        "plain, last logits, tokens_per_s": np.median(rates[:, 2]),
    }
    return [keys | {"metric": metric, "value": value} for metric, value in values.items()]


def _rate(run: Callable[[], int]) -> float:
    """Tokens a second; a run gives how many it took."""
    start = time.perf_counter()
    tokens = run()
    return tokens / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
