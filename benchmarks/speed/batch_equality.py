"""Whether a batch gives what single calls give: 200 real users, alone and shuffled together.

Run: python -m benchmarks.speed.batch_equality
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.harness.results import record_results
from llmrec.data.readers import load_dataset
from llmrec.data.splits import sample_windows, split_windows
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.llm import LLMForecaster
from llmrec.language.codec import codec_for
from llmrec.language.model import LanguageModel


def main() -> None:
    """Report the largest difference of any category score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100, help="users of each log")
    parser.add_argument("--model", default="smollm2-135m")
    arguments = parser.parse_args()
    model = LanguageModel.load(arguments.model)
    rows = []
    for name in ("ml-100k", "completejourney"):
        dataset = load_dataset(name)
        forecaster = LLMForecaster(model, codec_for(dataset, model), DecayedDirichlet())
        windows = sample_windows(split_windows(dataset)["validation"], arguments.users)
        histories = [window.history for window in windows]
        single = np.concatenate([forecaster.category_scores([history]) for history in histories])
        order = np.random.default_rng(0).permutation(len(histories))
        shuffled = np.empty_like(single)
        shuffled[order] = forecaster.category_scores([histories[i] for i in order])
        rows.append(
            {
                "dataset": name,
                "split": "validation",
                "model": "shuffled batch against single calls",
                "metric": "largest_difference",
                "value": float(np.abs(shuffled - single).max()),
                "low": None,
                "high": None,
                "n": len(histories),
                "seeds": [0],
            }
        )
    record_results("speed/batch_equality", rows)


if __name__ == "__main__":
    main()
