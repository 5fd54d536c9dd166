"""Examples for an adapter that ranks in benchmarks.ranking.compare: all of a log but people's newest.

The log is what `benchmarks.ranking.splits` wrote; nothing of it is judged, so nothing needs to be
kept back but what decides when training stops: everybody's last whole period.

    python -m benchmarks.ranking.splits --out runs/ml-next-period
    python -m benchmarks.ranking.adapter_examples --data runs/ml-next-period --out pairs/ml-next-period
    python finetune/lora.py finetune/configs/smollm2-135m-ml-100k.yaml --data runs/ml-next-period \
        --pairs pairs/ml-next-period --out runs/ml-next-period-adapter --lines.epochs 0 \
        --renamed 0 --epochs 7
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
    deciding = split_windows(dataset)["test"]
    people = rolling_training_windows(dataset, validated=True)
    codec = codec_for(dataset, LanguageModel.load(), template="forecast-v3", budget=BUDGET)
    prior = DecayedDirichlet().fit(deciding)
    manifest = save_examples(arguments.out, dataset, codec, prior, people, deciding)
    print(f"{manifest.n_timelines} timelines, {manifest.n_slots} slots, {len(deciding)} windows")


if __name__ == "__main__":
    main()
