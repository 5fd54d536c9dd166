"""Examples for the adapter of benchmarks.ranking.compare: a log without people's newest events.

The log is what `benchmarks.ranking.splits` wrote; none of it is a test, so nothing needs to be held
out but what decides when training stops: everybody's last whole period.

    python -m benchmarks.ranking.splits --out runs/ml-next-period
    python -m benchmarks.ranking.adapter_examples --data runs/ml-next-period \
        --out examples/ml-next-period
    python finetune/lora.py finetune/configs/smollm2-135m-ml-100k.yaml --data runs/ml-next-period \
        --examples examples/ml-next-period --out runs/ml-next-period-adapter \
        --generation.epochs 0 --label_renaming 0 --epochs 7
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llmrec.data.readers import load_dataset
from llmrec.data.splits import rolling_training_windows, split_windows
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.codec import codec_for
from llmrec.language.model import LanguageModel
from llmrec.training.dataset import save_examples

BUDGET = 130


def main() -> None:
    """Write the examples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    dataset = load_dataset(arguments.data)
    validation = split_windows(dataset)["test"]
    timelines = rolling_training_windows(dataset, include_validation=True)
    codec = codec_for(dataset, LanguageModel.load(), template="forecast-v3", budget=BUDGET)
    prior = DecayedDirichlet().fit(validation)
    manifest = save_examples(arguments.out, dataset, codec, prior, timelines, validation)
    counted = f"{manifest.n_timelines} timelines, {manifest.n_slots} read positions"
    print(f"{counted}, {len(validation)} windows")


if __name__ == "__main__":
    main()
